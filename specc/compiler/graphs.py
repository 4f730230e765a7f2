"""The models' graphs, captured and prepared, in each type of weights that an engine reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from torch.fx import GraphModule
from transformers import PreTrainedModel

from specc import passes
from specc.compiler.capture import capture
from specc.compiler.panels import PackPanels
from specc.compiler.quantize import BITS, QuantizeLinears
from specc.compiler.weights import share_tied
from specc.passes import Crossing, Graft, GuessSlots, Pass
from specc.passes.one_loop import OneLoop
from specc.runtime.block import LOOP, Block
from specc.runtime.manifest import PassRecord


@dataclass(frozen=True)
class PreparedGraph:
    """A model's graph after the passes that every block needs. Engines are made from copies of it.

    Attributes:
        graph: the graph.
        passes: what prepared it.
        grafts: those of the trained heads whose states the model's blocks may return.
        guesses: those of the trained heads whose guesses may stand in slots of the model's blocks.
        bridges: those of the trained heads that may stand in the place of the model's layers.
    """

    graph: GraphModule
    passes: tuple[PassRecord, ...]
    grafts: tuple[Graft, ...] = ()
    guesses: tuple[GuessSlots, ...] = ()
    bridges: tuple[Crossing, ...] = ()

    def changed(self, graph: GraphModule, records: Sequence[PassRecord]) -> PreparedGraph:
        """Return what this is after further passes.

        Args:
            graph: the graph after them.
            records: the passes.
        """
        return replace(self, graph=graph, passes=(*self.passes, *records))

    def block_passes(self, block: Block, capacity: int) -> list[Pass]:
        """Return the passes that turn the graph into a block with so many rows in its cache."""
        return passes.pipeline(block, capacity, self.grafts, self.guesses, self.bridges)


Graphs = Mapping[tuple[str, str], PreparedGraph]  # by (model, type of weights), see `graph_key`


def graph_key(graphs: Graphs, block: Block) -> tuple[str, str]:
    """Return the key of the graph that a block is made from. A backend makes types without a graph from fp32."""
    name = graph_name(block)
    key = name, block.weights
    return key if key in graphs else (name, "fp32")


def graph_name(block: Block) -> str:
    """Return the name of the graph that a block is made from: its model's, or that of one loop of its model."""
    return f"{block.model}:{LOOP}" if LOOP in block.inputs else block.model


def prepare(model: PreTrainedModel, capacity: int, dump: Path | None) -> PreparedGraph:
    """Capture a model and run the passes that every block needs.

    Args:
        model: the model, in fp32.
        capacity: rows of the cache, which is the number of positions.
        dump: a directory for the graph after each pass.

    Raises:
        CaptureError: the model cannot be captured.
        PassError: a pass did not find what it rewrites.
    """
    graph = capture(model)
    records = passes.run(passes.preparation(capacity), graph, dump)
    share_tied(graph)  # before any copy, so that all copies read a tied weight under one name
    return PreparedGraph(graph, tuple(records))


def add_one_loop(graphs: Graphs, blocks: Iterable[Block], loops: int) -> dict[tuple[str, str], PreparedGraph]:
    """Add the graph of one loop of the draft model if a block runs one loop.

    Args:
        graphs: the prepared graphs.
        blocks: the blocks of all recipes or engines.
        loops: how often the draft model runs its block of layers.

    Raises:
        PassError: the loops differ in more than their weights.
    """
    variants = dict(graphs)
    for name, model in {(graph_name(block), block.model) for block in blocks if LOOP in block.inputs}:
        prepared = graphs[model, "fp32"]
        graph = passes.fork(prepared.graph)
        records = passes.run([OneLoop(loops, model)], graph)
        share_tied(graph)
        variants[name, "fp32"] = prepared.changed(graph, records)
    return variants


def quantize_graphs(
    graphs: Graphs,
    blocks: Iterable[Block],
    advance: Callable[[int, int], None] = lambda done, count: None,
    stored: Mapping[str, passes.Pass] = MappingProxyType({}),
) -> dict[tuple[str, str], PreparedGraph]:
    """Add a graph for each model and each quantised type in which a block of that model reads its weights.

    Args:
        graphs: the prepared graphs.
        blocks: the blocks of all engines.
        advance: called with the products of a graph that are quantised, and with their number.
        stored: for types of the target's weights that its checkpoint has already, the pass that takes them from there.
    """
    variants = dict(graphs)
    for name, kind in sorted({(graph_name(block), block.weights) for block in blocks}):
        if kind not in BITS:
            continue
        prepared = graphs[name, "fp32"]
        graph = passes.fork(prepared.graph)
        step = stored.get(kind) if name == "target" else None
        records = passes.run([step or QuantizeLinears(BITS[kind], advance=advance)], graph)
        share_tied(graph)
        variants[name, kind] = prepared.changed(graph, records)
    return variants


def pack_graphs(graphs: Graphs, blocks: Iterable[Block], rounds: bool) -> dict[tuple[str, str], PreparedGraph]:
    """Make a graph for each model and type of weights that a block reads, with the weights in panels.

    Args:
        graphs: the prepared graphs, quantised ones included.
        blocks: what will be built from them.
        rounds: whether bf16 may round values that it does not hold.
    """
    variants: dict[tuple[str, str], PreparedGraph] = {}
    for name, kind in sorted({(graph_name(block), block.weights) for block in blocks}):
        prepared = graphs[(name, kind) if kind in BITS else (name, "fp32")]
        graph = passes.fork(prepared.graph)
        records = passes.run([PackPanels(kind == "bf16", rounds)], graph)
        share_tied(graph)
        variants[name, kind] = prepared.changed(graph, records)
    return variants
