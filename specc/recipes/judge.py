"""The method whose trained head judges the tokens of a draft model."""

from __future__ import annotations

from functools import partial

from specc.recipes.defaults import LENGTHS
from specc.recipes.draft_model import plan_with_rule
from specc.recipes.entry import Family, Method, Parameter

JUDGE = Method(
    name="judge-decoding",
    title="Judge Decoding: drafted tokens stay that a trained head finds good (lossy)",
    try_when="Speed matters more than the model's own words, and a good draft model says the same in other words.",
    about=(
        "A draft model drafts a long chain, and the model runs it in one step. A drafted token stays if the model "
        "would have chosen it. It also stays if a linear head finds it good, by the model's state after it. "
        "The first token that is neither ends the draft, and the model's own follows. So the answer may differ "
        "from the model's own, unless the threshold is 1."
    ),
    paper="Judge Decoding, Bachmann et al. 2025, arXiv:2501.19309",
    departures=(
        "Where a request samples, the model's own rule is match; the paper's is speculative sampling.",
        "Without marked answers the head is trained on answers of the model with random wrong tokens; the paper's are "
        "marked by people.",
    ),
    family=Family.SECOND_MODEL,
    drafter="draft-model",
    topology="chain",
    plan=partial(plan_with_rule, "judge"),
    parameters={
        "num_speculative_tokens": Parameter(LENGTHS.copy, "tokens a draft", "long ones"),
        "threshold": Parameter(
            0.5, "lossy: a token is good if the head's probability exceeds this; 1 is lossless", "0.5"
        ),
    },
    acceptance="judge",
    lossless=False,
    by_default=False,
    needs=("assistant-model", "head"),
    head="judge",
)
