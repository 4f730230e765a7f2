"""A method that drafts by a recursive model."""

from __future__ import annotations

from specc.recipes.blocks import CONFIDENCE, RANKED_OUTPUTS, chains, count, length_arguments
from specc.recipes.defaults import LENGTHS, WIDTHS
from specc.recipes.entry import Facts, Family, Method, MethodBlocks, Parameter, Values
from specc.runtime.block import Block, Layers
from specc.runtime.tree import Tree


def _plan_relaxed_recursive(values: Values, facts: Facts) -> MethodBlocks:
    loops = count(values, "draft_loops", most=facts.assistant_loops)
    whole = loops == facts.assistant_loops
    layers = Layers() if whole else Layers(exit_after=loops * (facts.assistant_layers // facts.assistant_loops))
    draft = Block(Tree.chain(1), RANKED_OUTPUTS, layers, model="assistant", cache="assistant")
    prefill = Block(Tree.chain(WIDTHS.prefill), layers=layers, last_row=True, model="assistant", cache="assistant")
    verify = chains(1 + count(values, "num_speculative_tokens"))
    return MethodBlocks(verify, {"draft": draft, "prefill": prefill}, length_arguments(values))


RELAXED_RECURSIVE = Method(
    name="relaxed-recursive",
    title="A relaxed recursive transformer as the draft model: one block of layers, in one loop or several",
    try_when="No smaller model with this tokenizer exists, and 'specc train' made such a draft model.",
    about=(
        "The draft model is the model with few matrices: a block of layers runs in loops. In each loop, a layer adds "
        "small products of its own to the shared matrices. It can end after any loop. Here it drafts a chain, a token "
        "a call, after its first loop or a later one. The model verifies the chain in one step."
    ),
    paper="Relaxed Recursive Transformers, Bae et al. 2024, arXiv:2410.20672",
    departures=(
        "The recursive model drafts for the model that it was made of; the paper replaces that model, and exits early "
        "without verification.",
        "Norms and biases are each layer's own; in the paper, layers share them.",
        "All tokens take the same loops; the paper's tokens exit after different loops, in one batch.",
    ),
    family=Family.SECOND_MODEL,
    drafter="draft-model",
    topology="chain",
    plan=_plan_relaxed_recursive,
    parameters={
        "num_speculative_tokens": Parameter(LENGTHS.draft, "tokens a draft"),
        "draft_loops": Parameter(1, "loops that a draft runs; a draft model that is not recursive has one"),
        "assistant_confidence_threshold": CONFIDENCE,
    },
    by_default=False,
    needs=("assistant-model",),
)
