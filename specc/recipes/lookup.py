"""Methods that copy drafts from the text."""

from __future__ import annotations

from dataclasses import replace

from specc.recipes.blocks import LONGEST_MATCH, chains, check_matches, count
from specc.recipes.defaults import LENGTHS
from specc.recipes.entry import Facts, Family, Method, MethodBlocks, Parameter, Values


def _plan_lookup(values: Values, facts: Facts) -> MethodBlocks:
    check_matches(values)
    return MethodBlocks(chains(1 + count(values, "prompt_lookup_num_tokens")), {}, dict(values))


PROMPT_LOOKUP = Method(
    name="prompt-lookup",
    title="Prompt lookup decoding",
    try_when="The answer repeats the prompt or itself: code, edits, summaries, extraction.",
    about=(
        "It looks for the last few tokens at an earlier place of the text. What followed them there is the draft. The "
        "longest match decides, and its latest place. A longer match copies more tokens. Copying costs no call of a "
        "model, so a wrong draft costs little."
    ),
    paper="Saxena 2023, github.com/apoorvumang/prompt-lookup-decoding",
    departures=(
        "A shorter match copies fewer tokens, and a copy that reaches the end of the text goes on with itself. Both "
        "were faster on code.",
    ),
    family=Family.TEXT,
    drafter="prompt-lookup",
    topology="chain",
    length="match",
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
    about=(
        "It copies from the text as prompt lookup does. In each step the model also says what it would have said after "
        "every drafted token, right or wrong. Those answers go into a table by the tokens before them. Where a copy "
        "ends, or nothing matches, the table continues the draft. The table lasts as long as the session."
    ),
    paper="Saxena 2023; Token Recycling, Luo et al. 2024, arXiv:2408.08696",
    departures=("It is specc's own combination of the two papers. Neither of them has a table of n-grams.",),
    family=Family.TEXT,
    drafter="recycled-lookup",
    topology="chain",
    length="match",
    schedule="union",
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
    about=(
        "It remembers where each run of five tokens first occurred. When the last five tokens occur again, it copies "
        "the ten tokens that followed them. Otherwise it takes a plain step. A copy costs no call of a model. The "
        "model verifies the copy in one step."
    ),
    paper="Dumitru et al. 2025, arXiv:2502.08923",
    departures=(
        "The index holds the tokens themselves and not their hash, so two runs never share an entry.",
        "Where nothing matches it takes a plain step; the recipe copyspec-draft asks a draft model there, as the paper "
        "can.",
    ),
    family=Family.TEXT,
    drafter="copy-spec",
    topology="chain",
    length="match",
    plan=_plan_lookup,
    parameters={
        "min_matching_ngram_size": Parameter(5, "tokens that must match, gamma", "5"),
        "prompt_lookup_num_tokens": Parameter(10, "the largest number of copied tokens", "10"),
    },
    by_default=False,
)


def _plan_aggressive_decoding(values: Values, facts: Facts) -> MethodBlocks:
    return MethodBlocks(chains(1 + count(values, "num_speculative_tokens")), {}, dict(values))


AGGRESSIVE_DECODING = Method(
    name="aggressive-decoding",
    title="Input-guided Aggressive Decoding: copy the prompt on and on",
    try_when="The answer is the prompt's text with a few changes, as in correction of grammar.",
    about=(
        "It takes the prompt for the answer, and copies it on and on. When the model says another token, it decodes "
        "plainly. As soon as the last tokens occur at one place of the prompt alone, it copies again from there. The "
        "smallest such run decides, of one to three tokens. It suits answers that repeat the prompt with a few "
        "changes."
    ),
    paper="Ge et al. 2022, arXiv:2205.10350; Sun et al. 2021, arXiv:2106.04970",
    departures=(
        "A step copies a bounded number of tokens, since engines have fixed widths; the paper copies all that is left.",
        "The target decodes; the paper has a model with an encoder.",
    ),
    family=Family.TEXT,
    drafter="aggressive-decoding",
    topology="chain",
    length="match",
    plan=_plan_aggressive_decoding,
    parameters={
        "num_speculative_tokens": Parameter(
            LENGTHS.lookup, "tokens copied in a step at most", "all that is left of the input"
        ),
    },
    by_default=False,
)
