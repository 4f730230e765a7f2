"""Methods that draft chains by the model itself: fewer layers, fewer bits."""

from __future__ import annotations

from dataclasses import replace

from specc.recipes.blocks import (
    CONFIDENCE,
    LONGEST_MATCH,
    RANKED_OUTPUTS,
    SKIP,
    chain_arguments,
    chains,
    check_matches,
    count,
    skipped_layers,
)
from specc.recipes.defaults import LENGTHS
from specc.recipes.entry import Facts, LayerSearch, Method, MethodBlocks, Parameter, Values
from specc.runtime.block import Block
from specc.runtime.tree import Tree


def _plan_layer_skip(values: Values, facts: Facts) -> MethodBlocks:
    draft = Block(Tree.chain(1), RANKED_OUTPUTS, skipped_layers(values, facts))
    return MethodBlocks(chains(1 + count(values, "num_speculative_tokens")), {"draft": draft}, chain_arguments(values))


LAYER_SKIP = Method(
    name="layer-skip",
    title="Self-speculation by skipping layers",
    try_when="The answer is new text, and the model has many layers.",
    paper="Draft & Verify, Zhang et al. 2024, arXiv:2309.08168; SWIFT, Xia et al. 2025, arXiv:2410.06916",
    drafter="layer-skip",
    topology="chain",
    plan=_plan_layer_skip,
    parameters={
        "num_speculative_tokens": Parameter(LENGTHS.draft, "tokens a draft"),
        **SKIP,
        "assistant_confidence_threshold": CONFIDENCE,
    },
    search=LayerSearch.SKIP_SOME,
)


def _plan_quantized_self_draft(values: Values, facts: Facts) -> MethodBlocks:
    blocks = _plan_layer_skip(values, facts)
    return replace(blocks, engines={"draft": replace(blocks.engines["draft"], weights="int4")})


QUANTIZED_SELF_DRAFT = Method(
    name="quantized-self-draft",
    title="Self-speculation by the model's own 4-bit copy",
    try_when="The answer is new text, and the weights of the model do not fit into the processor's cache.",
    paper="QuantSpec, Tiwari et al. 2025, arXiv:2502.10424: the half of it that is weights",
    drafter="layer-skip",
    topology="chain",
    plan=_plan_quantized_self_draft,
    parameters={
        "num_speculative_tokens": Parameter(LENGTHS.copy, "tokens a draft at most"),
        "skip_layers": Parameter((), "layers to skip whole"),
        "skip_attention": Parameter((), "layers whose attention to skip"),
        "skip_mlp": Parameter((), "layers whose MLP to skip"),
        "assistant_confidence_threshold": replace(CONFIDENCE, default=LENGTHS.copy_confidence),
    },
)


def _plan_cascade(values: Values, facts: Facts) -> MethodBlocks:
    check_matches(values)
    longest = 1 + count(values, "num_speculative_tokens") + count(values, "prompt_lookup_num_tokens")
    arguments = {name: value for name, value in values.items() if name not in SKIP}
    return MethodBlocks(chains(longest), _plan_quantized_self_draft(values, facts).engines, arguments)


CASCADE = Method(
    name="cascade",
    title="Prompt lookup, and the model's own 4-bit copy where the text holds no match",
    try_when="The answer repeats parts of the text and is new elsewhere, as in chat about code.",
    paper="Cascade Speculative Drafting, Chen et al. 2024, arXiv:2312.11462",
    drafter="cascade",
    topology="chain",
    plan=_plan_cascade,
    parameters={
        "num_speculative_tokens": Parameter(LENGTHS.copy_after_lookup, "tokens that the copy drafts at most"),
        "prompt_lookup_num_tokens": Parameter(LENGTHS.lookup_before_copy, "the largest number of copied tokens"),
        "max_matching_ngram_size": LONGEST_MATCH,
        "min_matching_ngram_size": Parameter(LENGTHS.shortest_match, "tokens that must match to copy any"),
        "assistant_confidence_threshold": CONFIDENCE,
        **SKIP,
    },
    search=LayerSearch.SKIP_IF_FASTER,
)


def _plan_staged(values: Values, facts: Facts) -> MethodBlocks:
    check_matches(values)
    draft = Block(Tree.chain(1), RANKED_OUTPUTS, weights="int4")
    wide = replace(draft, topology=Tree.chain(1 + count(values, "prompt_lookup_num_tokens")))
    verify = chains(1 + count(values, "num_speculative_tokens"))
    return MethodBlocks(verify, {"draft": draft, "wide": wide}, dict(values))


STAGED = Method(
    name="staged",
    title="Self-speculation by the 4-bit copy, itself sped up by prompt lookup",
    try_when="The 4-bit copy drafts well, but its own calls take too much time.",
    paper="Staged Speculative Decoding, Spector & Re 2023, arXiv:2308.04623",
    drafter="staged",
    topology="chain",
    plan=_plan_staged,
    parameters={
        "num_speculative_tokens": Parameter(LENGTHS.copy, "tokens a draft"),
        "prompt_lookup_num_tokens": Parameter(LENGTHS.lookup_for_copy, "tokens that the copy checks in a call"),
        "max_matching_ngram_size": LONGEST_MATCH,
        "min_matching_ngram_size": Parameter(LENGTHS.shortest_match, "tokens that must match to guess any"),
    },
)
