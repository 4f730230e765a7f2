"""Methods that draft by a trained head and by prompt lookup: in turns, or in one tree."""

from __future__ import annotations

from specc.recipes.blocks import CONFIDENCE, chains, check_matches, count, length_arguments
from specc.recipes.defaults import LENGTHS, TREES
from specc.recipes.entry import Facts, Family, Method, MethodBlocks, Parameter, Values
from specc.recipes.heads import STEP_COSTS, drafting_blocks, plan_tree
from specc.runtime.drafters.eagle_lookup import check_match_rates
from specc.runtime.tree import Tree


def _plan_eagle3_cascade(values: Values, facts: Facts) -> MethodBlocks:
    check_matches(values)
    longest = 1 + max(count(values, "num_speculative_tokens"), count(values, "prompt_lookup_num_tokens"))
    engines = drafting_blocks("eagle3", Tree.chain(1), longest, facts)
    return MethodBlocks(chains(longest), engines, dict(values) | length_arguments(values))


EAGLE3_CASCADE = Method(
    name="eagle3-cascade",
    title="Prompt lookup, and EAGLE-3's trained layer where the text holds no match",
    try_when="A head was trained for the model, and answers repeat long parts of the prompt or of themselves.",
    about=(
        "Prompt lookup is asked first at each place of a draft, since it costs nothing. Where it finds nothing, a "
        "trained layer drafts one token, as in eagle3. Then lookup is asked again, with that token. A copy ends the "
        "draft. The model verifies the whole chain in one step."
    ),
    paper="Cascade Speculative Drafting, Chen et al. 2024, arXiv:2312.11462; EAGLE-3, Li et al. 2025, arXiv:2503.01840",
    departures=("The second drafter is a trained layer and not a smaller model.",),
    family=Family.HEADS,
    drafter="eagle-cascade",
    topology="chain",
    length="confidence",
    schedule="union",
    plan=_plan_eagle3_cascade,
    parameters={
        "num_speculative_tokens": Parameter(LENGTHS.head_after_lookup, "tokens that the head drafts at most"),
        "prompt_lookup_num_tokens": Parameter(LENGTHS.lookup_before_head, "the largest number of copied tokens"),
        "max_matching_ngram_size": Parameter(
            LENGTHS.longest_match_before_head, "the largest number of last tokens that must match"
        ),
        "min_matching_ngram_size": Parameter(LENGTHS.shortest_match_before_head, "tokens that must match to copy any"),
        "assistant_confidence_threshold": CONFIDENCE,
    },
    needs=("head",),
    head="eagle3",
    trained_as="eagle3",
)


def _plan_eagle3_lookup(values: Values, facts: Facts) -> MethodBlocks:
    check_match_rates(values["match_rates"])
    return plan_tree("eagle3", values, facts)


EAGLE3_LOOKUP = Method(
    name="eagle3-lookup",
    title="EAGLE-3's trained layer and prompt lookup, in one tree",
    try_when="A head was trained for the model, and answers repeat the prompt or themselves here and there.",
    about=(
        "It looks for the last few tokens at an earlier place of the text. What followed them there is one path of the "
        "tree. The longer the match, the likelier the path. A trained layer gives the other nodes, as in eagle3-tree, "
        "and nodes of one path are one node. As many of the likeliest are the draft as pay by the costs of a step."
    ),
    paper="EAGLE-3, Li et al. 2025, arXiv:2503.01840; Saxena 2023, github.com/apoorvumang/prompt-lookup-decoding",
    departures=("It is specc's own combination of the two. Neither of them has chances by the length of a match.",),
    family=Family.HEADS,
    drafter="eagle-lookup",
    topology="dynamic tree",
    length="budget",
    schedule="union",
    plan=_plan_eagle3_lookup,
    parameters={
        "num_speculative_tokens": Parameter(TREES.head_nodes, "tree nodes at most, copied ones included"),
        "max_depth": Parameter(TREES.head_depth_beside_lookup, "levels at most that the head drafts"),
        "step_costs": STEP_COSTS,
        "match_rates": Parameter(
            TREES.match_rates, "how often a copy's first token is right, by how many tokens match: 1, 2, …"
        ),
    },
    needs=("head",),
    head="eagle3",
    trained_as="eagle3",
)
