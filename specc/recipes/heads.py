"""Methods that draft by a trained head: a small module that reads the target's hidden states."""

from __future__ import annotations

from specc.recipes.blocks import CONFIDENCE, chains, count, head_block, length_arguments
from specc.recipes.defaults import LENGTHS, WIDTHS
from specc.recipes.entry import Facts, Method, MethodBlocks, Parameter, Values
from specc.runtime.tree import Tree


def _plan_chain(head: str, values: Values, facts: Facts) -> MethodBlocks:
    """Plan chains by a recurrent head. After a step, one call runs the accepted tokens beside the target's states."""
    slots = 1 + count(values, "num_speculative_tokens")
    engines = {
        "draft": head_block(head, Tree.chain(1)),
        "feed": head_block(head, Tree.chain(slots), last_row=True),
        "prefill": head_block(head, Tree.chain(WIDTHS.prefill), last_row=True),
    }
    return MethodBlocks(chains(slots), engines, length_arguments(values))


def _plan_eagle3(values: Values, facts: Facts) -> MethodBlocks:
    return _plan_chain("eagle3", values, facts)


EAGLE3 = Method(
    name="eagle3",
    title="EAGLE-3's trained layer, on chains",
    try_when="The answer is new text, and a head was trained for the model by 'specc train'.",
    paper="EAGLE-3, Li et al. 2025, arXiv:2503.01840",
    drafter="eagle",
    topology="chain",
    plan=_plan_eagle3,
    parameters={
        "num_speculative_tokens": Parameter(LENGTHS.head, "tokens a draft at most"),
        "assistant_confidence_threshold": CONFIDENCE,
    },
    needs=("head",),
    head="eagle3",
)
