"""Methods that draft by a second, smaller model."""

from __future__ import annotations

from specc.recipes.blocks import CONFIDENCE, RANKED_OUTPUTS, chain_arguments, chains, count, prefill
from specc.recipes.defaults import LENGTHS
from specc.recipes.entry import Facts, Method, MethodBlocks, Parameter, Values
from specc.runtime.block import Block
from specc.runtime.tree import Tree


def _plan_draft_model(values: Values, facts: Facts) -> MethodBlocks:
    draft = Block(Tree.chain(1), RANKED_OUTPUTS, model="assistant", cache="assistant")
    engines = {"draft": draft, "prefill": prefill("assistant")}
    return MethodBlocks(chains(1 + count(values, "num_speculative_tokens")), engines, chain_arguments(values))


DRAFT_MODEL = Method(
    name="draft-model",
    title="Speculative decoding with a draft model",
    try_when="A model of a tenth of the size with this tokenizer exists.",
    paper="Leviathan et al. 2023, arXiv:2211.17192",
    drafter="draft-model",
    topology="chain",
    plan=_plan_draft_model,
    parameters={
        "num_speculative_tokens": Parameter(LENGTHS.draft, "tokens a draft"),
        "assistant_confidence_threshold": CONFIDENCE,
    },
    needs=("assistant-model",),
)
