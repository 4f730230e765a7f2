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
    prefill,
    rule_parameters,
    skipped_layers,
)
from specc.recipes.defaults import LENGTHS
from specc.recipes.entry import Facts, Family, LayerSearch, Method, MethodBlocks, Parameter, Values
from specc.runtime.block import MOST_GROUP, Block
from specc.runtime.drafters.short_context import MOST_CONTEXT
from specc.runtime.errors import RecipeError
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
        "Keys and values keep their type; the recipe quantspec has the paper's rows in 4 bits.",
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


def _plan_quantspec(values: Values, facts: Facts) -> MethodBlocks:
    group = count(values, "group_rows", most=MOST_GROUP)
    draft = Block(Tree.chain(1), RANKED_OUTPUTS, weights="int4", quantized_group=group)
    return MethodBlocks(chains(1 + count(values, "num_speculative_tokens")), {"draft": draft}, length_arguments(values))


QUANTSPEC = Method(
    name="quantspec",
    title="QuantSpec: the model drafts with weights, keys and values of 4 bits",
    try_when="Texts are long, and the machine reads rows of 4 bits at the speed of its memory. A CPU does not yet.",
    about=(
        "The model drafts by a copy of itself whose weights have 4 bits. The draft reads the model's older rows in 4 "
        "bits too: keys channel by channel within a group of rows, values row by row. The newest rows stay as they "
        "are, so a rejected token never touches the rounded ones. The model verifies the chain over its exact rows. "
        "So the answer is the model's own."
    ),
    paper="QuantSpec, Tiwari et al. 2025, arXiv:2502.10424",
    departures=(
        "The model verifies over exact rows, so that it stays itself; the paper's reads rows in 8 bits, of which the "
        "draft's 4 are the upper half. So memory grows by a sixth, and does not shrink.",
        "ONNX Runtime has no attention over such groups, so the engine widens the rows first. On a CPU that costs more "
        "time than it saves.",
        "Acceptance is by match and not by min(1, p / q), so that a seed gives the tokens of plain decoding.",
    ),
    family=Family.ITSELF,
    drafter="layer-skip",
    topology="chain",
    plan=_plan_quantspec,
    parameters={
        "num_speculative_tokens": Parameter(LENGTHS.copy, "tokens a draft"),
        "group_rows": Parameter(64, "rows that are rounded together; the newest one to two groups are exact"),
    },
    by_default=False,
)


def _plan_quantspec_int8(values: Values, facts: Facts) -> MethodBlocks:
    blocks = _plan_quantspec(values, facts)
    if type(values["row_bits"]) is not int or values["row_bits"] not in (0, 8):
        raise RecipeError(f"row_bits is {values['row_bits']!r}; give 8, or 0 for rows as they are")
    if not values["row_bits"]:
        return blocks
    group = values["group_rows"]
    widths = (blocks.verify[0], blocks.verify[-1])  # No other recipe shares these engines.
    verify = tuple(replace(block, quantized_group=group, quantized_bits=8) for block in widths)
    return replace(blocks, verify=verify, arguments={**blocks.arguments, "group_rows": group})


QUANTSPEC_INT8 = Method(
    name="quantspec-int8",
    title="QuantSpec as published: the model, too, reads its older rows in 8 bits (lossy)",
    try_when="Answers may differ a little from the model's own. A machine gains if it reads rows of 8 bits fast.",
    about=(
        "Older rows are kept as two halves of 4 bits. The draft, a copy of the model with weights of 4 bits, reads the "
        "upper halves. The model verifies over both halves, which are rows of 8 bits. The newest rows stay as they "
        "are, so a rejected token never touches the rounded ones. Answers are those of plain decoding over rows of 8 "
        "bits, and may differ from those over exact rows."
    ),
    paper="QuantSpec, Tiwari et al. 2025, arXiv:2502.10424",
    departures=(
        "Exact rows are kept beside the rounded ones, so memory grows and does not shrink.",
        "ONNX Runtime has no attention over such groups, so engines widen the rows first. On a CPU that costs more "
        "time than it saves.",
        "Acceptance is by match and not by min(1, p / q), so that a seed gives the tokens of plain decoding over rows "
        "of 8 bits.",
    ),
    family=Family.ITSELF,
    drafter="layer-skip",
    topology="chain",
    plan=_plan_quantspec_int8,
    parameters={
        **QUANTSPEC.parameters,
        "row_bits": Parameter(8, "lossy: bits in which the model reads older rows; 0 reads them as they are", "8"),
    },
    lossless=False,
    by_default=False,
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
    schedule="union",
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
    schedule="staged",
    plan=_plan_staged,
    parameters={
        "num_speculative_tokens": Parameter(LENGTHS.copy, "tokens a draft"),
        "prompt_lookup_num_tokens": Parameter(LENGTHS.lookup_for_copy, "tokens that the copy checks in a call"),
        "max_matching_ngram_size": LONGEST_MATCH,
        "min_matching_ngram_size": Parameter(LENGTHS.shortest_match, "tokens that must match to guess any"),
    },
)


DRAFT_AND_VERIFY = Method(
    name="draft-and-verify",
    title="Draft & Verify: self-speculation whose threshold follows what was accepted",
    try_when="Layer-skip pays here, and how sure the draft is means more in one text than in another.",
    about=(
        "The model drafts by itself with some of its layers left out. A search on calibration text chooses them. "
        "Drafting stops after a token whose probability is below a threshold. It rises while too few drafted "
        "tokens are accepted, and falls while enough are. So the length of a draft adapts to the text."
    ),
    paper="Draft & Verify, Zhang et al. 2024, arXiv:2309.08168",
    departures=(
        "The search for layers measures costs and agreement; the paper's is a Bayesian search that takes hours.",
    ),
    family=Family.ITSELF,
    drafter="layer-skip",
    topology="chain",
    length="adaptive",
    plan=_plan_layer_skip,
    parameters={
        "num_speculative_tokens": Parameter(LENGTHS.copy, "tokens a draft at most"),
        **SKIP,
        "assistant_confidence_threshold": Parameter(0.6, "the first threshold, gamma"),
        "target_acceptance_rate": Parameter(
            0.9, "share of accepted tokens towards which the threshold moves", "0.9 in the authors' code"
        ),
    },
    by_default=False,
    search=LayerSearch.SKIP_SOME,
)


def _plan_short_context(values: Values, facts: Facts) -> MethodBlocks:
    for name in ("context_tokens", "chunk_tokens"):
        count(values, name, most=MOST_CONTEXT)
    engines = {
        "draft": Block(Tree.chain(1), RANKED_OUTPUTS, cache="short"),
        "prefill": replace(prefill(), cache="short"),
    }
    own = {name: values[name] for name in ("context_tokens", "chunk_tokens")}
    return MethodBlocks(chains(1 + count(values, "num_speculative_tokens")), engines, own | length_arguments(values))


SHORT = {
    "num_speculative_tokens": Parameter(LENGTHS.draft, "tokens a draft"),
    "context_tokens": Parameter(256, "tokens of a longer prompt that the draft reads", "8192 in the authors' example"),
    "chunk_tokens": Parameter(32, "tokens of a chunk of the prompt", "512 in the authors' example"),
}
SHORT_CONTEXT = Method(
    name="short-context",
    title="Self-speculation on a shortened prompt",
    try_when="Prompts have thousands of tokens, and a small part of them matters for the answer.",
    about=(
        "The model drafts for itself over a part of the prompt: its end, and those chunks before it that share rare "
        "tokens with the end. The part has a cache of its own. It is shorter, so a call of the draft reads fewer keys "
        "and values. The model verifies the chain over the whole prompt. So the answer is the model's own."
    ),
    paper="RAPID, Chen et al. 2025, arXiv:2502.20330, with lossless verification",
    departures=(
        "Chunks are found by their tokens, so that no other model is needed; the paper has a model of embeddings.",
        "The draft reads its weights in the type of --draft-dtype, 4 bits unless the user says fp32.",
        "Verification is by match; the recipe rapid has the rule of the paper.",
    ),
    family=Family.ITSELF,
    drafter="short-context",
    topology="chain",
    plan=_plan_short_context,
    parameters=SHORT,
    by_default=False,
)


def _plan_rapid(values: Values, facts: Facts) -> MethodBlocks:
    return replace(_plan_short_context(values, facts), rule=rule_parameters("enriched", values))


RAPID = Method(
    name="rapid",
    title="RAPID: the model on retrieved chunks drafts, and moves the model on all of them (lossy)",
    try_when="Prompts have thousands of tokens, and answers may differ from the model's own.",
    about=(
        "The model drafts for itself over a part of the prompt, as in short-context. Its probabilities over that part "
        "then move the logits of the model over the whole prompt. Drafted tokens are accepted by the moved "
        "distribution. So a long prompt is read with the attention that a short one gets. The answer differs from the "
        "model's own, unless eta is 0."
    ),
    paper="RAPID, Chen et al. 2025, arXiv:2502.20330",
    departures=(
        "Chunks are found by their tokens, so that no other model is needed; the paper has a model of embeddings.",
        "The draft reads its weights in the type of --draft-dtype, 4 bits unless the user says fp32.",
        "Tokens that the draft finds unlikely keep the model's logits, so that eta 0 is the model itself.",
    ),
    family=Family.ITSELF,
    drafter="short-context",
    topology="chain",
    plan=_plan_rapid,
    parameters={
        **SHORT,
        "eta": Parameter(10.0, "lossy: how far the logits move; 0 is lossless", "10"),
        "alpha": Parameter(0.1, "share of the draft's largest probability below which a logit stays", "0.1"),
    },
    acceptance="enriched",
    lossless=False,
    by_default=False,
)
