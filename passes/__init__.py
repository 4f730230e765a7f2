"""Passes: each is one rewrite of a captured graph. Lists of passes turn a captured graph into a block.

Between any two passes the graph is valid and runs in torch. `run` does what every pass needs: clean-up, checks, timing
and the context of an error.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from torch.fx import GraphModule

from specc.runtime.block import MIXTURE, STATE, Block, Frontier, GuessTree, Layers, Parents
from specc.runtime.errors import PassError, SpeccWarning
from specc.runtime.manifest import PassRecord

from .bake_tree import BakeTree
from .bound_positions import BoundPositions
from .bridge import Bridge
from .choose_outputs import ChooseOutputs
from .core_aten import CoreAten
from .drop_asserts import DropAsserts
from .drop_noops import DropNoops
from .exit_after import ExitAfter
from .find import fork
from .fold_constants import FoldConstants
from .fuse_rms_norm import FuseRMSNorm
from .fuse_rotary import FuseRotary
from .graft import Graft
from .guess_slots import GuessSlots
from .keep_row import KeepRow
from .lanes import Lanes
from .lower_attention import LowerAttention
from .mask_input import MaskInput
from .merge_projections import MergeProjections
from .mix_slots import MixSlots
from .out_of_place import OutOfPlace
from .pad_heads import PadHeads
from .parallel_layers import ParallelLayers
from .parents_input import ParentsInput
from .protocol import Miss, Pass
from .prune_tree import PruneTree
from .quantized_rows import QuantizedRows
from .second_stream import SecondStream
from .skip_sublayers import SkipSublayers
from .start_after import StartAfter
from .unroll_cells import UnrollCells

__all__ = [
    "Bridge",
    "Crossing",
    "Graft",
    "GuessSlots",
    "Miss",
    "Pass",
    "SecondStream",
    "fork",
    "pipeline",
    "preparation",
    "run",
    "state_preparation",
]

if __name__ != "specc.passes":
    raise ImportError(f"import specc.passes, not {__name__}: it is installed under specc")

Crossing = Bridge | SecondStream  # What may stand in the place of the layers that a block leaves out.
HEAD_MULTIPLE = 8  # sizes: the kernels of all backends take heads of a multiple of it


def preparation(positions: int) -> list[Pass]:
    """Return the passes that every block of a model needs. They run once, on the captured graph.

    Args:
        positions: The number of positions that tables of angles must cover.
    """
    return [
        DropAsserts(),
        OutOfPlace(),
        DropNoops(),
        FoldConstants(),
        FuseRMSNorm(),
        BoundPositions(positions),
        FuseRotary(positions),
        PadHeads(HEAD_MULTIPLE),
        MergeProjections(),
        CoreAten(),
    ]


def state_preparation() -> list[Pass]:
    """Return the passes that the module needs which computes the states of a trained head. They run once."""
    return [DropAsserts(), OutOfPlace(), DropNoops(), FoldConstants(), FuseRMSNorm(), MergeProjections(), CoreAten()]


def pipeline(
    block: Block,
    capacity: int,
    grafts: Sequence[Graft] = (),
    guesses: Sequence[GuessSlots] = (),
    bridges: Sequence[Crossing] = (),
) -> list[Pass]:
    """Return the passes that turn a prepared graph into `block`, in order.

    Args:
        block: What the engine is to compute.
        capacity: The rows of its cache.
        grafts: Those of the trained heads whose states the block may return.
        guesses: Those of the trained heads whose guesses may stand in slots of the block.
        bridges: Those of the trained heads that may stand in the place of layers.
    """
    passes: list[Pass] = [graft for graft in grafts if f"{STATE}{graft.name}" in block.outputs]
    topology = block.topology
    if isinstance(topology, GuessTree):
        most = max(map(len, topology.guesses))
        ours = [each for each in guesses if each.name == topology.head and each.first < most]
        passes += _guessing(ours, topology, block)
        topology = topology.tree
    passes += _layers(block.layers, reads_states=bool(block.inputs))
    passes += [bridge for bridge in bridges if bridge.name == block.layers.bridge]
    passes.append(LowerAttention(capacity))
    if "state" in block.inputs:  # Trained heads alone have cells that run from slot to slot.
        passes.append(UnrollCells(block.slots))
    if block.quantized_group:
        passes.append(QuantizedRows(block.quantized_group, block.quantized_bits))
    if block.lanes > 1:
        passes.append(Lanes(block.lanes, topology))
    if isinstance(topology, Parents):
        passes.append(ParentsInput(block.slots))
    elif isinstance(topology, Frontier):
        passes.append(MaskInput(block.slots, topology.span))
    elif block.lanes == 1 or not block.is_chain:  # With lanes, `Lanes` computes the mask of chains.
        passes.append(BakeTree(topology))
    if MIXTURE in block.inputs:
        passes.append(MixSlots(block.slots))
    if block.last_row:
        passes.append(KeepRow())
    passes.append(ChooseOutputs(block.outputs))
    return passes


def _guessing(guesses: Sequence[GuessSlots], tree: GuessTree, block: Block) -> list[Pass]:
    """Return the passes that let slots guess, and that which drops tokens between those before it and those behind."""
    if block.pruning is None:
        return [replace(each, topology=tree) for each in guesses]
    before = [each for each in guesses if each.after is None or 1 + each.after < block.pruning.after]
    left = tree.first(block.pruning.tokens)
    return [
        *(replace(each, topology=tree) for each in before),
        PruneTree(block.pruning, tree),
        *(replace(each, topology=left) for each in guesses if each not in before),
    ]


def _layers(layers: Layers, reads_states: bool) -> list[Pass]:
    """Return the passes that choose which of the model's layers run, and in which order."""
    passes: list[Pass] = []
    if layers.exit_after is not None:
        passes.append(ExitAfter(layers.exit_after))
    if layers.start_after is not None:
        passes.append(StartAfter(layers.start_after))
    if layers.parallel_group > 1:
        passes.append(ParallelLayers(layers.parallel_group))
    if layers.skip_attention or layers.skip_mlp:
        passes.append(SkipSublayers(layers.skip_attention, layers.skip_mlp, reads_states))
    return passes


def run(passes: Sequence[Pass], graph: GraphModule, dump: Path | None = None) -> list[PassRecord]:
    """Apply passes in order, and clean up and check the graph after each.

    A pass that may find nothing, and finds nothing although the graph plainly has what it rewrites, gives a
    SpeccWarning with the nearest miss. Its record keeps that text as a note.

    Args:
        passes: What to apply.
        graph: The graph to edit in place.
        dump: A directory that gets the graph after each pass, as Python.

    Returns:
        A record for each pass.

    Raises:
        PassError: A pass failed. The message names the pass, what it missed, and what ran before it.
    """
    records: list[PassRecord] = []
    for number, step in enumerate(passes):
        nodes_before, start, note = len(graph.graph.nodes), time.perf_counter(), ""
        try:
            changed = step(graph)
            if not changed and not step.optional:
                raise PassError("found nothing to change")
            if not changed:
                note = _note(step, graph)
            graph.graph.eliminate_dead_code()
            graph.graph.lint()
        except Exception as e:
            before = ", ".join(record.name for record in records) or "no other pass"
            raise PassError(f"{step!r}: {e} (after {before})") from e
        if note:
            warnings.warn(note, SpeccWarning, stacklevel=2)
        records.append(
            PassRecord(
                name=repr(step),
                changed=changed,
                nodes_before=nodes_before,
                nodes_after=len(graph.graph.nodes),
                seconds=time.perf_counter() - start,
                note=note,
            )
        )
        if dump:
            dump.mkdir(parents=True, exist_ok=True)
            (dump / f"{number:02}-{type(step).__name__}.py").write_text(graph.print_readable(print_output=False))
    graph.recompile()
    return records


def _note(step: Pass, graph: GraphModule) -> str:
    """Say what a pass that changed nothing came nearest to; empty if the graph has nothing of the kind."""
    miss = step.nearest_miss(graph)
    return (
        f"{type(step).__name__} changed nothing; nearest: {miss}; the model compiles, but runs slower" if miss else ""
    )
