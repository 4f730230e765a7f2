"""Passes: one rewrite of a captured graph each, and the lists that make a block.

A pass is a frozen dataclass called on a GraphModule. It edits in place and returns how many places it changed;
between any two passes the graph is valid and runs. What every pass needs is done once, in `run`.
"""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from torch.fx import Graph, GraphModule

from specc.runtime.block import Block, Frontier, Parents
from specc.runtime.errors import PassError
from specc.runtime.manifest import PassRecord

from .bake_tree import BakeTree
from .bound_positions import BoundPositions
from .choose_outputs import ChooseOutputs
from .core_aten import CoreAten
from .drop_asserts import DropAsserts
from .drop_noops import DropNoops
from .exit_after import ExitAfter
from .fold_constants import FoldConstants
from .fuse_rms_norm import FuseRMSNorm
from .fuse_rotary import FuseRotary
from .keep_row import KeepRow
from .lower_attention import LowerAttention
from .mask_input import MaskInput
from .merge_projections import MergeProjections
from .out_of_place import OutOfPlace
from .pad_heads import PadHeads
from .parents_input import ParentsInput
from .skip_sublayers import SkipSublayers

if __name__ != "specc.passes":
    raise ImportError(f"import specc.passes, not {__name__}: it is installed under specc")


class Pass(Protocol):
    """`optional = True` on the class says that it may find nothing."""

    def __call__(self, graph: GraphModule) -> int: ...


def preparation(positions: int) -> list[Pass]:
    """What every block of a model wants; done once, on the captured graph."""
    return [
        DropAsserts(), OutOfPlace(), DropNoops(), FoldConstants(), FuseRMSNorm(), FuseRotary(positions),
        BoundPositions(positions), PadHeads(8), MergeProjections(), CoreAten(),
    ]  # fmt: skip


def pipeline(block: Block, capacity: int) -> list[Pass]:
    """The passes that turn a prepared graph into `block`, in order."""
    passes: list[Pass] = []
    layers, topology = block.layers, block.topology
    if layers.exit_after is not None:
        passes.append(ExitAfter(layers.exit_after))
    if layers.skip_attention or layers.skip_mlp:
        passes.append(SkipSublayers(layers.skip_attention, layers.skip_mlp))
    passes.append(LowerAttention(capacity))
    if isinstance(topology, Parents):
        passes.append(ParentsInput(topology.slots))
    elif isinstance(topology, Frontier):
        passes.append(MaskInput(topology.slots, topology.span))
    else:
        passes.append(BakeTree(topology))
    if block.last_row:
        passes.append(KeepRow())
    passes.append(ChooseOutputs(block.outputs))
    return passes


def run(passes: Sequence[Pass], graph: GraphModule, dump: Path | None = None) -> list[PassRecord]:
    """Apply `passes` in order, cleaning up and checking after each. `dump` gets the graph after each as Python.

    Raises PassError naming the pass, what it missed, and what ran before it.
    """
    done: list[PassRecord] = []
    for i, p in enumerate(passes):
        before, start = len(graph.graph.nodes), time.perf_counter()
        try:
            changed = p(graph)
            if not changed and not getattr(p, "optional", False):
                raise PassError("found nothing to change")
            graph.graph.eliminate_dead_code()
            graph.graph.lint()
        except Exception as e:
            after = ", ".join(r.name for r in done) or "no other pass"
            raise PassError(f"{p!r}: {e} (after {after})") from e
        done.append(
            PassRecord(
                name=repr(p),
                changed=changed,
                nodes_before=before,
                nodes_after=len(graph.graph.nodes),
                seconds=time.perf_counter() - start,
            )
        )
        if dump:
            dump.mkdir(parents=True, exist_ok=True)
            (dump / f"{i:02}-{type(p).__name__}.py").write_text(graph.print_readable(print_output=False))
    graph.recompile()
    return done


def fork(graph: GraphModule) -> GraphModule:
    """A graph to rewrite that shares the weights of this one."""
    twin = Graph()
    twin.output(twin.graph_copy(graph.graph, seen := {}), None)
    for old, new in seen.items():
        new.meta = copy.copy(old.meta)
    return GraphModule(graph, twin, type(graph).__name__)
