"""Methods that draft chains by the model itself: fewer layers, fewer bits."""

from __future__ import annotations

from dataclasses import replace

from specc.recipes.blocks import (
    CONFIDENCE,
    LONGEST_MATCH,
    RANKED_OUTPUTS,
    SKIP,
    chains,
    check_matches,
    count,
    length_arguments,
    skipped_layers,
)
from specc.recipes.defaults import LENGTHS
from specc.recipes.entry import Facts, Family, LayerSearch, Method, MethodBlocks, Parameter, Values
from specc.runtime.block import Block
from specc.runtime.tree import Tree


def _plan_layer_skip(values: Values, facts: Facts) -> MethodBlocks:
    draft = Block(Tree.chain(1), RANKED_OUTPUTS, skipped_layers(values, facts))
    return MethodBlocks(chains(1 + count(values, "num_speculative_tokens")), {"draft": draft}, length_arguments(values))


LAYER_SKIP = Method(
    name="layer-skip",
    title="Self-speculation by skipping layers",
    try_when="The answer is new text, and the model has many layers.",
    about=(
        "The model drafts by itself with some of its layers left out. Drafts share the rows of the model, so no second "
        "cache is needed. A search on calibration text chooses the sublayers that cost most and matter least. The "
        "draft is a chain, which the model verifies in one step. A threshold on the confidence can end a draft early."
    ),
    paper="Draft & Verify, Zhang et al. 2024, arXiv:2309.08168; SWIFT, Xia et al. 2025, arXiv:2410.06916",
    departures=(
        "The search runs once, while the bundle is compiled; SWIFT goes on with it while it decodes.",
        "The threshold stays as it is; the recipe draft-and-verify moves it as that paper does.",
    ),
    family=Family.ITSELF,
    drafter="layer-skip",
    topology="chain",
    length="confidence",
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
    about=(
        "The model drafts by a copy of itself whose weights have 4 bits. The copy reads the rows of the model and "
        "writes none that stay. It drafts a chain, one token a call, and stops after a token that it doubts. The model "
        "then verifies the chain in one step. A copy costs a quarter of the memory traffic, so it pays where weights "
        "are the bottleneck."
    ),
    paper="QuantSpec, Tiwari et al. 2025, arXiv:2502.10424: the half of it that is weights",
    departures=(
        "Keys and values keep their type; the paper halves them too, into 4 bits for drafts and 8 for the target. ONNX "
        "Runtime's attention for the CPU has no such rows.",
        "Acceptance is by match and not by min(1, p / q), so that a seed gives the tokens of plain decoding.",
    ),
    family=Family.ITSELF,
    drafter="layer-skip",
    topology="chain",
    length="confidence",
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
    about=(
        "Two drafters take turns in one draft. Prompt lookup is asked first at each place, since it costs nothing. "
        "Where it finds nothing, the model's 4-bit copy drafts one token. Then lookup is asked again, with that token. "
        "The model verifies the whole chain in one step."
    ),
    paper="Cascade Speculative Drafting, Chen et al. 2024, arXiv:2312.11462",
    departures=(
        "The second drafter is a copy of the model and not a smaller model, so the recipe needs nothing but the model.",
    ),
    family=Family.ITSELF,
    drafter="cascade",
    topology="chain",
    length="confidence",
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
    about=(
        "The draft itself is sped up by speculation. Prompt lookup guesses a few tokens. The model's 4-bit copy checks "
        "them in one call, and keeps those that it agrees with. What the copy says becomes the draft. The model "
        "verifies the draft in one step."
    ),
    paper="Staged Speculative Decoding, Spector & Re 2023, arXiv:2308.04623",
    departures=(
        "The draft is a chain of a 4-bit copy; the recipe staged-tree has the paper's draft model and its tree.",
    ),
    family=Family.ITSELF,
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
