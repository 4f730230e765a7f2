"""Methods that copy drafts from the text."""

from __future__ import annotations

from dataclasses import replace

from specc.recipes.blocks import LONGEST_MATCH, chains, check_matches, count
from specc.recipes.defaults import LENGTHS
from specc.recipes.entry import Facts, Method, MethodBlocks, Parameter, Values


def _plan_lookup(values: Values, facts: Facts) -> MethodBlocks:
    check_matches(values)
    return MethodBlocks(chains(1 + count(values, "prompt_lookup_num_tokens")), {}, dict(values))


PROMPT_LOOKUP = Method(
    name="prompt-lookup",
    title="Prompt lookup decoding",
    try_when="The answer repeats the prompt or itself: code, edits, summaries, extraction.",
    paper="Saxena 2023, github.com/apoorvumang/prompt-lookup-decoding",
    drafter="prompt-lookup",
    topology="chain",
    plan=_plan_lookup,
    parameters={
        "prompt_lookup_num_tokens": Parameter(LENGTHS.lookup, "the largest number of copied tokens"),
        "max_matching_ngram_size": LONGEST_MATCH,
    },
)
RECYCLED_LOOKUP = Method(
    name="recycled-lookup",
    title="Prompt lookup that goes on with the model's recycled answers",
    try_when="Prompt lookup is fast here, and one session answers many prompts of one kind.",
    paper="Saxena 2023; Token Recycling, Luo et al. 2024, arXiv:2408.08696",
    drafter="recycled-lookup",
    topology="chain",
    plan=_plan_lookup,
    parameters={
        "prompt_lookup_num_tokens": Parameter(LENGTHS.lookup, "tokens copied or recycled at most"),
        "max_matching_ngram_size": replace(
            LONGEST_MATCH, help="the largest number of last tokens that must match, and that are recycled"
        ),
    },
)
COPYSPEC = Method(
    name="copyspec",
    title="CopySpec: copy what followed the first place of the last tokens",
    try_when="The answer repeats long parts of the text word for word, as in edits of an earlier answer.",
    paper="Dumitru et al. 2025, arXiv:2502.08923",
    drafter="copy-spec",
    topology="chain",
    plan=_plan_lookup,
    parameters={
        "min_matching_ngram_size": Parameter(5, "tokens that must match, gamma; 5 in the paper"),
        "prompt_lookup_num_tokens": Parameter(10, "the largest number of copied tokens; 10 in the paper"),
    },
    by_default=False,
)


def _plan_aggressive_decoding(values: Values, facts: Facts) -> MethodBlocks:
    return MethodBlocks(chains(1 + count(values, "num_speculative_tokens")), {}, dict(values))


AGGRESSIVE_DECODING = Method(
    name="aggressive-decoding",
    title="Input-guided Aggressive Decoding: copy the prompt on and on",
    try_when="The answer is the prompt's text with a few changes, as in correction of grammar.",
    paper="Ge et al. 2022, arXiv:2205.10350; Sun et al. 2021, arXiv:2106.04970",
    drafter="aggressive-decoding",
    topology="chain",
    plan=_plan_aggressive_decoding,
    parameters={
        "num_speculative_tokens": Parameter(
            LENGTHS.lookup, "tokens copied in a step at most; the paper copies all that is left of the input"
        ),
    },
    by_default=False,
)
