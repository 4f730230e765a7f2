"""The method that ends drafts of a draft model by the probability that they are accepted."""

from __future__ import annotations

from dataclasses import replace

from specc.recipes.draft_model import plan_draft_model
from specc.recipes.entry import Facts, Family, Method, MethodBlocks, Parameter, Values
from specc.runtime.block import STATE

HEAD = "specdec_plus_plus"  # The head that foresees acceptance has this architecture.


def _plan_specdec_plus_plus(values: Values, facts: Facts) -> MethodBlocks:
    blocks = plan_draft_model(values, facts)
    if HEAD not in facts.heads:
        return blocks
    draft = blocks.engines["draft"]
    draft = replace(draft, outputs=(*draft.outputs, f"{STATE}{HEAD}"))
    arguments = {**blocks.arguments, "acceptance_head": HEAD}
    return replace(blocks, engines={**blocks.engines, "draft": draft}, arguments=arguments)


SPECDEC_PLUS_PLUS = Method(
    name="specdec-plus-plus",
    title="SpecDec++'s adaptive length, by a trained head or by the draft model's own probabilities",
    try_when="A draft model is right for long at some places and wrong at others.",
    about=(
        "A draft model drafts a chain. After each token a trained head estimates the probability that the chain so far "
        "is accepted; without a head, the draft model's own probabilities do. It stops once a rejection is likely "
        "enough. So it drafts long where it is sure and short where it is not. The model verifies the chain in one "
        "step."
    ),
    paper="SpecDec++, Huang et al. 2024, arXiv:2405.19715",
    departures=(
        "Without `--head`, the estimate is the draft model's own probability of its tokens; the paper always has the "
        "head.",
        "The head learns from the draft model's likeliest tokens behind the model's own text; the paper's text has "
        "sampled tokens of the draft model in it.",
        "Rejections weigh six times as much in training, as in the paper, but the head's bias takes that back, so that "
        "the threshold is a probability.",
    ),
    family=Family.SECOND_MODEL,
    drafter="draft-model",
    topology="chain",
    length="cumulative",
    plan=_plan_specdec_plus_plus,
    parameters={
        "num_speculative_tokens": Parameter(20, "tokens a draft at most", "2 to 20"),
        "rejection_threshold": Parameter(
            0.3, "drafting stops once a rejection is likelier than this, h", "0.3 in the authors' example"
        ),
    },
    by_default=False,
    needs=("assistant-model",),
    optional_head=HEAD,
    training_needs="--assistant-model SMALL",
)
