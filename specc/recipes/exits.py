"""Methods that draft by the model's first layers, and verify by the other layers alone."""

from __future__ import annotations

from dataclasses import replace

from specc.recipes.blocks import CONFIDENCE, EXIT, RANKED_OUTPUTS, chains, count, exit_layers, length_arguments
from specc.recipes.defaults import LENGTHS, WIDTHS
from specc.recipes.entry import Facts, Family, HeadFacts, Method, MethodBlocks, Parameter, Values
from specc.runtime.block import HIDDEN, STATE, Block, Layers
from specc.runtime.errors import RecipeError
from specc.runtime.tree import Tree

EXIT_LAYERS = 2  # of Kangaroo without an adapter, as in the paper for a model of 7B


def _plan_exit(values: Values, facts: Facts) -> MethodBlocks:
    return _plan_halves(exit_layers(values, facts), values)


def _plan_m2r2(values: Values, facts: Facts) -> MethodBlocks:
    """Plan the halves of the model that the head names."""
    head = facts.heads.get("m2r2", HeadFacts(draft_layers=Layers(exit_after=1, bridge="m2r2")))
    blocks = _plan_halves(head.draft_layers, values)
    shallow = blocks.engines["shallow"]
    shallow = replace(shallow, outputs=(*shallow.outputs, f"{STATE}m2r2"))
    return replace(
        blocks, engines={**blocks.engines, "shallow": shallow}, arguments={**blocks.arguments, "gate": "m2r2"}
    )


def _plan_halves(layers: Layers, values: Values) -> MethodBlocks:
    """Plan a half of the model that drafts, and one that goes on from there.

    Args:
        layers: those that draft.
        values: see `Method`.
    """
    assert layers.exit_after is not None
    whole = chains(1 + count(values, "num_speculative_tokens"))
    shallow = Block(Tree.chain(1), (*RANKED_OUTPUTS, f"hidden:{layers.exit_after - 1}"), layers)
    rest = Layers(start_after=layers.exit_after)
    deep = {f"deep_{i}": replace(block, layers=rest, inputs=(HIDDEN,)) for i, block in enumerate(whole)}
    return MethodBlocks(
        whole, {"shallow": shallow, **deep}, length_arguments(values), parts=frozenset(["shallow", *deep])
    )


LAYERSKIP = Method(
    name="layerskip",
    title="LayerSkip's self-speculation: an early exit drafts, and the model goes on from there",
    try_when="The model was trained for early exit, such as LayerSkip's, and chains are accepted.",
    about=(
        "The model drafts a chain by its first layers, followed by its own norm and head. What these layers computed "
        "stays. It is their keys and values, and their hidden states. To verify, the model runs its other layers "
        "alone, on the hidden states of all drafted tokens in one step. So a drafted token passes each layer once."
    ),
    paper="LayerSkip, Elhoushi et al. 2024, arXiv:2404.16710",
    departures=(
        "The model is as it was trained; the paper trains it with early exits, without which few drafts are right.",
        "Acceptance is by match unless a request asks for speculative, so that a seed gives the tokens of plain "
        "decoding.",
    ),
    family=Family.ITSELF,
    drafter="shared-exit",
    topology="chain",
    length="confidence",
    plan=_plan_exit,
    parameters={
        "num_speculative_tokens": Parameter(LENGTHS.draft, "tokens a draft"),
        "assistant_early_exit": EXIT,
        "assistant_confidence_threshold": CONFIDENCE,
    },
    by_default=False,
)


ADAPTER = "kangaroo"  # The head behind the exit has this architecture.


def _plan_kangaroo(values: Values, facts: Facts) -> MethodBlocks:
    """Plan an exit with an adapter if there is one, where it was trained; otherwise the exit alone."""
    adapter = facts.heads.get(ADAPTER)
    if adapter is None or not adapter.taps:
        layer = values["assistant_early_exit"]
        return _plan_exit({**values, "assistant_early_exit": EXIT_LAYERS if layer is None else layer}, facts)
    exit_after = adapter.taps[0] + 1
    layer = values["assistant_early_exit"]
    if layer is not None and (type(layer) is not int or layer != exit_after):
        raise RecipeError(
            f"assistant_early_exit is {layer!r}, and the adapter was trained behind "
            f"{exit_after} layers; give {exit_after}, or leave it out"
        )
    blocks = _plan_halves(Layers(exit_after=exit_after), values)
    # Deep engines commit rows, so they return what the adapter reads of them.
    halves_of_it = {
        role: replace(block, outputs=(*block.outputs, f"{STATE}{ADAPTER}")) if block.layers.start_after else block
        for role, block in blocks.engines.items()
    }
    engines = {
        "adapter": Block(Tree.chain(1), RANKED_OUTPUTS, model=ADAPTER, cache=ADAPTER, inputs=("state",)),
        "feed": Block(
            Tree.chain(WIDTHS.prefill), ("ids",), last_row=True, model=ADAPTER, cache=ADAPTER, inputs=("state",)
        ),
    }
    return replace(blocks, engines={**halves_of_it, **engines})


KANGAROO = Method(
    name="kangaroo",
    title="Kangaroo's double early exit, with a trained adapter or without it",
    try_when="An adapter was trained by 'specc train', or the first two or three layers know the next token.",
    about=(
        "The model drafts by very few of its first layers. A trained adapter, which is one attention layer, and the "
        "model's own head follow; without an adapter, the model's own norm and head do. It stops after a token that it "
        "doubts, which is the second exit, and verifies that token too. To verify, the model runs its other layers "
        "alone, from the hidden states of the first ones. So a drafted token passes each layer once."
    ),
    paper="Kangaroo, Liu et al. 2024, arXiv:2404.18911",
    departures=(
        "Without `--head` there is no adapter; the paper always has one, without which few drafts are right.",
        "The last token of a draft runs in the first layers too, so that a draft that is right as a whole gives one "
        "more token.",
    ),
    family=Family.ITSELF,
    drafter="shared-exit",
    topology="chain",
    length="confidence",
    plan=_plan_kangaroo,
    parameters={
        "num_speculative_tokens": Parameter(6, "tokens a draft at most", "6"),
        "assistant_early_exit": Parameter(
            None,
            "layers that the draft runs (default: those before the adapter; 2 without one)",
            "2 for a model of 7B, 3 for one of 13B",
        ),
        "assistant_confidence_threshold": Parameter(
            0.6, "drafting stops after a token to which the draft gave less probability", "0.6"
        ),
    },
    by_default=False,
    optional_head=ADAPTER,
)


M2R2 = Method(
    name="m2r2",
    title="M2R2: an early exit by a second residual stream, which runs ahead of the model's own",
    try_when="Such a head was trained for the model, whose first layers alone draft badly.",
    about=(
        "The model drafts by its first layers. Behind each of them, a trained adapter moves a second residual stream "
        "several layers ahead of the model's own, so that the model's norm and head can read it early. That stream "
        "attends to other tokens, too, over the model's own rows. A trained gate reads it and stops a draft before a "
        "token that may be wrong. The model then runs its other layers alone: a drafted token passes each layer once."
    ),
    paper="M2R2, Bhendawade et al. 2025, arXiv:2502.02040: its self-speculative decoding",
    departures=(
        "Experts of mixtures are not loaded ahead of time, since specc keeps no experts outside memory.",
        "The second stream's queries are products of low rank; how the paper makes them is not known here.",
        "The gate is weak where it was tried: of a right and a wrong token it is surer of the right one in 60 to 63 %.",
    ),
    family=Family.HEADS,
    drafter="shared-exit",
    topology="chain",
    length="gate",
    plan=_plan_m2r2,
    parameters={
        "num_speculative_tokens": Parameter(LENGTHS.draft, "tokens a draft at most"),
        "assistant_confidence_threshold": CONFIDENCE,
        "gate_threshold": Parameter(
            0.4, "drafting stops before a token to which the gate gives less probability to be right"
        ),
    },
    needs=("head",),
    head="m2r2",
)
