"""Methods that draft by a recursive model."""

from __future__ import annotations

from dataclasses import replace

from specc.recipes.blocks import CONFIDENCE, RANKED_OUTPUTS, chains, count, length_arguments
from specc.recipes.defaults import LENGTHS, WIDTHS
from specc.recipes.entry import Facts, Family, Method, MethodBlocks, Parameter, Values
from specc.runtime.block import LOOP, STATE, Block, Layers
from specc.runtime.drafters.recursive_depths import check_threshold
from specc.runtime.tree import Tree

ONE_LOOP = "assistant_loop"  # The cache of one loop of the draft model.


def _plan_relaxed_recursive(values: Values, facts: Facts) -> MethodBlocks:
    loops = count(values, "draft_loops", most=facts.assistant_loops)
    whole = loops == facts.assistant_loops
    layers = Layers() if whole else Layers(exit_after=loops * (facts.assistant_layers // facts.assistant_loops))
    draft = Block(Tree.chain(1), RANKED_OUTPUTS, layers, model="assistant", cache="assistant")
    prefill = Block(Tree.chain(WIDTHS.prefill), layers=layers, last_row=True, model="assistant", cache="assistant")
    verify = chains(1 + count(values, "num_speculative_tokens"))
    return MethodBlocks(verify, {"draft": draft, "prefill": prefill}, length_arguments(values))


def _plan_depths(values: Values, facts: Facts) -> MethodBlocks:
    length = 1 + count(values, "num_speculative_tokens")
    check_threshold(values["exit_threshold"])
    outputs = (*RANKED_OUTPUTS, f"{STATE}assistant")
    draft = Block(Tree.chain(1), outputs, model="assistant", cache=ONE_LOOP, inputs=("state", LOOP))
    engines = {
        "draft": draft,
        "fill": replace(draft, topology=Tree.chain(length)),
        "prefill": replace(draft, topology=Tree.chain(WIDTHS.prefill), last_row=True),
    }
    arguments = {"exit_threshold": values["exit_threshold"], **length_arguments(values)}
    return MethodBlocks(chains(length), engines, arguments)


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
        "All tokens take the same loops; those of `recursive-depths` exit after different loops, in one batch.",
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


RELAXED_RECURSIVE_DEPTHS = Method(
    name="recursive-depths",
    title="A relaxed recursive transformer as the draft model: each token exits after a loop of its own, in one batch",
    try_when="A recursive draft model exists, and many requests run at a time in a bundle with lanes.",
    about=(
        "The draft model is recursive: a block of layers runs in loops. A token exits after the first loop that is "
        "sure of the token after it. An engine runs one loop, and an input says which loop each slot runs. So requests "
        "share a run although they stand at different loops. The model verifies the chain in one step."
    ),
    paper="Relaxed Recursive Transformers, Bae et al. 2024, arXiv:2410.20672",
    departures=(
        "The recursive model drafts for the model that it was made of; the paper replaces that model, and exits early "
        "without verification.",
        "Norms and biases are each layer's own; in the paper, layers share them.",
        "A later loop first fills the rows of tokens that exited before it; how the paper does that is not known here.",
        "Requests share runs of the draft model within a step of the scheduler: first all draft, then all verify.",
    ),
    family=Family.SECOND_MODEL,
    drafter="recursive-depths",
    topology="chain",
    plan=_plan_depths,
    parameters={
        "num_speculative_tokens": Parameter(LENGTHS.draft, "tokens a draft"),
        "exit_threshold": Parameter(
            0.6, "a token exits after the first loop that gives its successor so much probability; above 1 runs all"
        ),
        "assistant_confidence_threshold": CONFIDENCE,
    },
    by_default=False,
    needs=("assistant-model",),
    trained_as="relaxed-recursive",
)
