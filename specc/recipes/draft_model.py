"""Methods that draft by a second, smaller model."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from specc.recipes.blocks import CONFIDENCE, chains, count, draft_model, length_arguments, rule_parameters
from specc.recipes.defaults import LENGTHS
from specc.recipes.entry import Facts, Family, Method, MethodBlocks, Parameter, Values
from specc.runtime.tree import Tree


def _plan_draft_model(values: Values, facts: Facts) -> MethodBlocks:
    verify = chains(1 + count(values, "num_speculative_tokens"))
    return MethodBlocks(verify, draft_model(Tree.chain(1)), length_arguments(values))


def _plan_with_rule(acceptance: str, values: Values, facts: Facts) -> MethodBlocks:
    """Plan a draft model, and give the values that belong to the acceptance rule to it."""
    return replace(_plan_draft_model(values, facts), rule=rule_parameters(acceptance, values))


DRAFT_MODEL = Method(
    name="draft-model",
    title="Speculative decoding with a draft model",
    try_when="A model of a tenth of the size with this tokenizer exists.",
    about=(
        "A second, smaller model drafts a few tokens, one a call. The model runs all of them in one step. It keeps the "
        "tokens up to the first one that it would not have chosen. Its own token follows them. The more alike the two "
        "models are, the more tokens a step gives."
    ),
    paper="Leviathan et al. 2023, arXiv:2211.17192",
    departures=(
        "Acceptance is by match unless a request asks for speculative, the rule of the paper: then a seed gives the "
        "tokens of plain decoding.",
    ),
    family=Family.SECOND_MODEL,
    drafter="draft-model",
    topology="chain",
    plan=_plan_draft_model,
    parameters={
        "num_speculative_tokens": Parameter(LENGTHS.draft, "tokens a draft"),
        "assistant_confidence_threshold": CONFIDENCE,
        "rejection_threshold": Parameter(1.0, "drafting stops once a rejection is likelier than this; 1 never stops"),
        "num_assistant_tokens_schedule": Parameter("constant", "schedule of the length: constant, heuristic or bass"),
    },
    needs=("assistant-model",),
)


SPECDEC_PLUS_PLUS = Method(
    name="specdec-plus-plus",
    title="SpecDec++'s adaptive length, by the draft model's own probabilities",
    try_when="A draft model is right for long at some places and wrong at others.",
    about=(
        "A draft model drafts a chain. After each token it estimates the probability that the chain so far is "
        "accepted. It stops once a rejection is likely enough. So it drafts long where it is sure and short where it "
        "is not. The model verifies the chain in one step."
    ),
    paper="SpecDec++, Huang et al. 2024, arXiv:2405.19715: its rule, without the trained head",
    departures=("The estimate is the draft model's own probability of its tokens; the paper trains a head for it.",),
    family=Family.SECOND_MODEL,
    drafter="draft-model",
    topology="chain",
    length="cumulative",
    plan=_plan_draft_model,
    parameters={
        "num_speculative_tokens": Parameter(20, "tokens a draft at most", "2 to 20"),
        "rejection_threshold": Parameter(
            0.3, "drafting stops once a rejection is likelier than this, h", "0.3 in the authors' example"
        ),
    },
    by_default=False,
    needs=("assistant-model",),
)


CONTRASTIVE = Method(
    name="contrastive",
    title="Speculative contrastive decoding (another text than the model's: the draft model says what not to choose)",
    try_when="Answers shall be better than the model's own, and a much weaker model with this tokenizer exists.",
    about=(
        "The draft model does two things: it drafts, and it says what not to choose. The score of a token is the "
        "model's logit less a share of the draft model's. Tokens that the model finds unlikely are never chosen. "
        "Drafts are accepted by speculative sampling against that score. So answers are those of contrastive decoding, "
        "and not the model's own."
    ),
    paper="Speculative Contrastive Decoding, Yuan et al. 2024, arXiv:2311.08981",
    family=Family.SECOND_MODEL,
    drafter="draft-model",
    topology="chain",
    length="confidence",
    plan=partial(_plan_with_rule, "contrastive"),
    parameters={
        "num_speculative_tokens": Parameter(LENGTHS.draft, "tokens a draft"),
        "assistant_confidence_threshold": CONFIDENCE,
        "alpha": Parameter(0.1, "share of the largest probability that a token needs", "0.1 in O'Brien & Lewis 2023"),
        "beta": Parameter(
            0.5,
            "weight of the draft model. With alpha 0 and beta 0 the text is the model's own",
            "0.5 in O'Brien & Lewis 2023",
        ),
    },
    acceptance="contrastive",
    lossless=False,
    by_default=False,
    needs=("assistant-model",),
)


BILD = Method(
    name="bild",
    title="Big Little Decoder (lossy: the model corrects only what it finds very unlikely)",
    try_when="Speed matters more than the model's own words, and a good smaller model with this tokenizer exists.",
    about=(
        "A small model writes until it is unsure. Then the large model runs over what it wrote. A token that the large "
        "model finds very unlikely is replaced, and what follows it is dropped. All others stay, though the large "
        "model might have chosen otherwise. So the answer may differ from the large model's own."
    ),
    paper="BiLD, Kim et al. 2023, arXiv:2302.07863",
    family=Family.ROUTING,
    drafter="draft-model",
    topology="chain",
    length="fallback",
    plan=partial(_plan_with_rule, "distance"),
    parameters={
        "num_speculative_tokens": Parameter(10, "tokens of the small model in a row at most", "10"),
        "fallback_threshold": Parameter(
            0.6, "drafting stops before a token if the largest probability is smaller", "0.6"
        ),
        "rollback_threshold": Parameter(
            5.0, "lossy: the cross-entropy that a drafted token may have, in nats. 0 is lossless", "2 to 5"
        ),
    },
    acceptance="distance",
    lossless=False,
    by_default=False,
    needs=("assistant-model",),
)


def _plan_entropy_adaptive(values: Values, facts: Facts) -> MethodBlocks:
    for name in ("entropy_window", "least_tokens"):
        count(values, name)
    return replace(_plan_draft_model(values, facts), arguments=dict(values))


ENTROPY_ADAPTIVE = Method(
    name="entropy-adaptive",
    title="Entropy Adaptive Decoding (lossy: a draft model writes where the text is easy, and nothing is verified)",
    try_when="Long parts of a text are so easy that a smaller model with this tokenizer can write them alone.",
    about=(
        "Two models take turns. The entropy of the last tokens says whether the text is easy or hard at this place. "
        "The small model writes where it is easy, and nothing is verified. The large model writes where it is hard. So "
        "the answer is that of both models."
    ),
    paper="Entropy Adaptive Decoding, Simonds 2025, arXiv:2502.06833",
    departures=(
        "The large model runs once for every run of the small one, to catch up on its tokens; the paper catches up "
        "only when it takes over.",
    ),
    family=Family.ROUTING,
    drafter="entropy-adaptive",
    topology="chain",
    length="entropy",
    plan=_plan_entropy_adaptive,
    parameters={
        "num_speculative_tokens": Parameter(7, "tokens drafted in a step at most"),
        "entropy_threshold": Parameter(
            1.0,
            "lossy: mean entropy, in bits, from which on the large model writes. 0 is lossless",
            "varies",
        ),
        "entropy_window": Parameter(5, "number of last tokens in the mean"),
        "least_tokens": Parameter(1, "tokens that one model writes before the other takes over, at least"),
    },
    acceptance="trust",
    lossless=False,
    by_default=False,
    needs=("assistant-model",),
)
