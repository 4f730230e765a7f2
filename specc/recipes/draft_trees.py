"""Methods that verify trees of a draft model whose shape follows from probabilities, measured or the draft's own."""

from __future__ import annotations

from functools import partial
from typing import Any

from specc.recipes.blocks import RANKS, TREE, check_matches, count, draft_frontier, draft_model, tree_of
from specc.recipes.defaults import LENGTHS, TREES
from specc.recipes.entry import Facts, Family, Method, MethodBlocks, Parameter, Values
from specc.runtime.block import Block, Frontier, Parents
from specc.runtime.drafters import MOST_TOKENS, check_probability
from specc.runtime.drafters.comb import check_siblings
from specc.runtime.errors import RecipeError
from specc.runtime.tree import Tree


def _plan_sequoia(values: Values, facts: Facts) -> MethodBlocks:
    slots, depth = 1 + count(values, "num_speculative_tokens"), count(values, "max_depth")
    if values["tree"] is not None:
        tree = tree_of(values["tree"])
    else:
        tree = Tree.best(_rates(values["acceptance_rates"]), slots, depth)
    if (widest := max(tree.rank)) >= RANKS:
        raise RecipeError(f"tree has a child of rank {widest}; a draft ranks {RANKS} tokens: use ranks 0..{RANKS - 1}")
    levels = [int((tree.depth == level).sum()) for level in range(int(tree.depth.max()))]
    frontier = draft_frontier(min(max(levels, default=1), TREES.frontier), tree.slots)
    return MethodBlocks((Block(tree),), draft_model(frontier), {"tree": tree.parents})


def _rates(rates: Any) -> tuple[float, ...]:
    """Return the acceptance rates by rank. Raises RecipeError for what is no list of probabilities."""
    if not isinstance(rates, (list, tuple)) or not 1 <= len(rates) <= RANKS:
        raise RecipeError(f"acceptance_rates is {rates!r}; give 1 to {RANKS} probabilities, such as [0.6, 0.2]")
    for rate in rates:
        check_probability(**{"a rate of acceptance_rates": rate})
    return tuple(rates)


SEQUOIA = Method(
    name="sequoia",
    title="Sequoia: the best tree of a draft model for measured acceptance and costs",
    try_when="A draft model exists, and `specc compile --tune` may measure which tree pays on this machine.",
    about=(
        "A draft model fills a tree that is fixed when the bundle is compiled. A dynamic programme finds the tree with "
        "the most expected tokens, from how often the first, second, third child is accepted. With --tune these rates "
        "and the costs of both models are measured, and the size and the depth of the tree follow from them. Where a "
        "request samples, siblings are drawn without replacement. The answer keeps the distribution of the model."
    ),
    paper="Sequoia, Chen et al. 2024, arXiv:2402.12374",
    departures=(
        "If the draft's distribution has fewer tokens than a node has children, the rest is padding that is never "
        "accepted; the paper draws it uniformly, which costs verification for tokens that the draft excludes.",
    ),
    family=Family.SECOND_MODEL,
    drafter="static-tree",
    topology="static tree",
    length="budget",
    plan=_plan_sequoia,
    parameters={
        "num_speculative_tokens": Parameter(TREES.dynamic_nodes, "tree nodes", "by the costs of a step"),
        "max_depth": Parameter(TREES.dynamic_depth, "levels at most", "by the costs of both models"),
        "acceptance_rates": Parameter(
            TREES.rates, "how often the child of rank 0, 1, … is accepted; --tune measures it", "measured"
        ),
        "tree": TREE,
    },
    acceptance="recursive",
    by_default=False,
    needs=("assistant-model",),
)


def _plan_grown(width: int, values: Values, facts: Facts) -> MethodBlocks:
    slots = 1 + count(values, "num_speculative_tokens")
    count(values, "max_depth")
    return MethodBlocks((Block(Parents(slots)),), draft_model(draft_frontier(width, slots)), dict(values))


GROWN = {
    "num_speculative_tokens": Parameter(TREES.dynamic_nodes, "tree nodes at most", "64, or 768 with offloading"),
    "max_depth": Parameter(TREES.dynamic_depth, "levels of the tree at most", "no bound"),
}
DYSPEC = Method(
    name="dyspec",
    title="DySpec: the node that is likeliest to be accepted comes next",
    try_when="A draft model is much cheaper than the model, and its certainty changes from place to place.",
    about=(
        "A draft model grows a tree, one node at a time. The next node is the one that is likeliest to be reached and "
        "accepted, by the draft's own probabilities. Siblings are drawn without replacement where the request samples. "
        "The model runs the tree in one step, and tries siblings one after another. The answer keeps the distribution "
        "of the model."
    ),
    paper="DySpec, Xiong et al. 2024, arXiv:2410.11744, algorithm 1",
    departures=(
        "Drafts are drawn at the temperature of the request; the paper draws them at 0.6, and a second temperature "
        "would be one more option of each request.",
    ),
    family=Family.SECOND_MODEL,
    drafter="heap-tree",
    topology="dynamic tree",
    length="budget",
    plan=partial(_plan_grown, 1),
    parameters=GROWN,
    acceptance="recursive",
    by_default=False,
    needs=("assistant-model",),
)
DYSPEC_THRESHOLD = Method(
    name="dyspec-threshold",
    title="DySpec's tree by a threshold, with sampled drafts",
    try_when="The trees of dyspec pay, but a call of the draft model for each node costs too much.",
    about=(
        "A draft model grows a tree level by level. A node gets children while the probability to reach them exceeds a "
        "threshold, one divided by the slots. So a level costs one call of the draft model. Siblings are drawn "
        "without replacement where the request samples, and the model tries them one after another. The answer keeps "
        "the distribution of the model."
    ),
    paper="DySpec, Xiong et al. 2024, arXiv:2410.11744, the threshold variant",
    departures=(
        "A level runs four nodes at most, since a call of the draft model has so many slots; the rest get no children.",
    ),
    family=Family.SECOND_MODEL,
    drafter="dynamic-tree",
    topology="dynamic tree",
    length="budget",
    plan=partial(_plan_grown, TREES.frontier),
    parameters=GROWN,
    acceptance="recursive",
    by_default=False,
    needs=("assistant-model",),
)


def _plan_dynamic_depth(values: Values, facts: Facts) -> MethodBlocks:
    nodes, beams = count(values, "num_speculative_tokens"), count(values, "beams")
    check_probability(mass_threshold=values["mass_threshold"])
    depths, possible = values["mass_depths"], range(1, 1 + MOST_TOKENS)
    if not isinstance(depths, (list, tuple)) or not all(type(depth) is int and depth in possible for depth in depths):
        raise RecipeError(f"mass_depths is {depths!r}; give a list of depths from 1 to {MOST_TOKENS}, such as [3, 5]")
    frontier = draft_frontier(beams, 1 + beams * count(values, "max_depth"))
    return MethodBlocks((Block(Parents(1 + nodes)),), draft_model(frontier), dict(values))


DYNAMIC_DEPTH = Method(
    name="dynamic-depth",
    title="Dynamic Depth Decoding: EAGLE-2's tree, as deep as its beam is likely",
    try_when="A draft model is sure for long at some places, and a deep tree would be wasted at others.",
    about=(
        "A draft model runs a beam of its likeliest texts, level by level. At some depths it sums up how likely the "
        "texts of the beam are together. If that is little, the tree ends there. Then all nodes that the beam met are "
        "ranked once more, and the likeliest are the draft. The model verifies them in one step."
    ),
    paper="Dynamic Depth Decoding, Brown et al. 2024, arXiv:2409.00142; EAGLE-2, Li et al. 2024, arXiv:2406.16858",
    departures=(
        "A draft model takes the place of EAGLE's trained head, of which the rule is independent.",
        "The threshold is a probability, and the paper's is its logarithm.",
    ),
    family=Family.SECOND_MODEL,
    drafter="ranked-tree",
    topology="dynamic tree",
    length="mass",
    plan=_plan_dynamic_depth,
    parameters={
        "num_speculative_tokens": Parameter(TREES.dynamic_nodes, "tree nodes at most", "59"),
        "beams": Parameter(TREES.frontier, "nodes that a level runs", "10"),
        "max_depth": Parameter(7, "levels at most", "11"),
        "mass_threshold": Parameter(0.3, "the tree ends if the beam has less probability", "tuned on a validation set"),
        "mass_depths": Parameter((3, 5), "the depths at which that is asked", "5, 7 and 9"),
    },
    by_default=False,
    needs=("assistant-model",),
)


def _plan_staged_tree(values: Values, facts: Facts) -> MethodBlocks:
    check_matches(values)
    slots, width = 1 + count(values, "num_speculative_tokens"), 2 * TREES.frontier
    frontier = Frontier(width, 1 + width * (1 + count(values, "max_depth")))
    return MethodBlocks((Block(Parents(slots)),), draft_model(frontier), dict(values))


STAGED_TREE = Method(
    name="staged-tree",
    title="Staged speculative decoding: a draft model's tree, itself sped up by prompt lookup",
    try_when="A draft model drafts well, its own calls take much time, and the text repeats itself.",
    about=(
        "A draft model grows a tree of likely nodes. Half of the slots of its calls run tokens that prompt lookup "
        "copies from the text. Where the draft model agrees with the copy, the nodes below have run already. So a tree "
        "costs fewer calls of the draft model than it has levels. The model verifies the tree in one step."
    ),
    paper="Staged Speculative Decoding, Spector & Re 2023, arXiv:2308.04623",
    departures=(
        "The first stage is prompt lookup in the request's text, and the paper's is an n-gram model of a corpus.",
    ),
    family=Family.SECOND_MODEL,
    drafter="staged-tree",
    topology="dynamic tree",
    length="budget",
    schedule="staged",
    plan=_plan_staged_tree,
    parameters={
        "num_speculative_tokens": Parameter(TREES.dynamic_nodes, "tree nodes at most"),
        "max_depth": Parameter(TREES.dynamic_depth, "levels of the tree at most"),
        "max_matching_ngram_size": Parameter(LENGTHS.longest_match, "tokens that must match at most"),
        "min_matching_ngram_size": Parameter(LENGTHS.shortest_match, "tokens that must match to guess any"),
    },
    by_default=False,
    needs=("assistant-model",),
)


def comb_values(values: Values) -> tuple[Block, dict[str, Any]]:
    """Return the block that verifies a comb, and the arguments of its drafter. Raises RecipeError."""
    count(values, "max_depth")
    check_siblings(values["siblings"])
    check_probability(assistant_confidence_threshold=values.get("assistant_confidence_threshold", 0))
    names = ("num_speculative_tokens", "max_depth", "siblings", "assistant_confidence_threshold")
    arguments = {name: values[name] for name in names if name in values}
    return Block(Parents(1 + count(values, "num_speculative_tokens"))), arguments


def _plan_cape(values: Values, facts: Facts) -> MethodBlocks:
    verify, arguments = comb_values(values)
    return MethodBlocks((verify,), draft_model(Tree.chain(1)), arguments)


CAPE = Method(
    name="cape",
    title="CaPE: a draft model's chain, with more siblings where it is less sure",
    try_when="A draft model's second token is often right, and a step with 16 or more slots is cheap.",
    about=(
        "A draft model drafts a chain of its likeliest tokens. At each place it also proposes its next likeliest "
        "tokens, more of them where it is less sure. Only the chain goes on, so the siblings cost no further call. The "
        "model verifies the comb in one step. If a sibling is right, a step gives one more token than by the chain."
    ),
    paper="GliDe with a CaPE, Du et al. 2024, arXiv:2402.02082: CaPE, over a draft model",
    departures=("The draft is an independent model; GliDe trains one that reads the target's keys and values.",),
    family=Family.SECOND_MODEL,
    drafter="comb",
    topology="comb",
    length="fixed",
    plan=_plan_cape,
    parameters={
        "num_speculative_tokens": Parameter(15, "nodes at most"),
        "max_depth": Parameter(4, "tokens of the chain at most"),
        "siblings": Parameter(
            ((0.8, 1), (0.6, 3), (0.3, 5), (0.0, 7)),
            "pairs: where the likeliest token has more probability than the first number, so many tokens are proposed",
            "1, 3, 5 and 7 above 0.8, 0.6, 0.3 and 0",
        ),
    },
    by_default=False,
    needs=("assistant-model",),
)
