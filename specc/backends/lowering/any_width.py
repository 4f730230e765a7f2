"""Make one file for chains of any width: their graphs differ in the number of slots alone.

An engine is one width of such a file. The runtime loads the file once, and binds buffers for each engine's tensors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import onnx_ir as ir
import torch
from torch.fx import GraphModule, Node

from specc.backends.lowering.emit import count_slots, emit, shape, swap
from specc.passes import Pass
from specc.passes.arguments import argument
from specc.passes.find import CELLS, aten, calls, constant, nodes
from specc.runtime.block import MIXTURE, Block
from specc.runtime.manifest import EngineSpec, Tensor
from specc.runtime.tree import Tree

SLOTS = "slots"
BAKED = ("tree_depth", "slot_numbers")  # constants 0, 1, … of as many numbers as there are slots
SHAPED = {aten.view.default, aten.reshape.default}


def possible(graph: GraphModule, block: Block) -> bool:
    """Tell whether a file of any width can run the block.

    It must be a chain of which all rows are asked for, over exact rows, and nothing but views may count the slots. A
    mixture has a column for each slot, and a recurrent cell is written out once for each.
    """
    if not block.is_chain or block.last_row or block.quantized_group or MIXTURE in block.inputs or calls(graph, CELLS):
        return False
    return all(_counts_once(user) for size in _sizes(graph) for user in size.users)


def traced_at(block: Block) -> Block:
    """Return the block to trace. It has two slots at least: torch takes a size of one for a constant."""
    return block if block.slots > 1 else replace(block, topology=Tree.chain(2))


def name_slots(model: ir.Model) -> None:
    """Name the size that the slots decide, in the inputs and outputs that have it."""
    for value in (*model.graph.inputs, *model.graph.outputs):
        assert value.name is not None and value.shape is not None
        if _has_slots(value.name, len(value.shape)):
            value.shape = ir.Shape([value.shape[0], SLOTS, *value.shape[2:]])


def engine_at(spec: EngineSpec, name: str, block: Block) -> EngineSpec:
    """Return the engine that runs the file of `spec` at the width of `block`, under its own name."""
    inputs, outputs = _resized(spec.inputs, block.slots), _resized(spec.outputs, block.slots)
    return replace(spec, name=name, block=block, inputs=inputs, outputs=outputs)


def _resized(tensors: tuple[Tensor, ...], slots: int) -> tuple[Tensor, ...]:
    """Return the tensors of an engine with so many slots."""
    return tuple(
        replace(t, shape=(t.shape[0], slots, *t.shape[2:])) if _has_slots(t.name, len(t.shape)) else t for t in tensors
    )


def _has_slots(name: str, rank: int) -> bool:
    """Tell whether the second size of an input or output is the number of slots."""
    return rank > 1 and not name.startswith(("past_key_values.", "present."))


def _sizes(graph: GraphModule) -> list[Node]:
    """Return the nodes whose value is a number that follows from the number of slots."""
    return [n for n in nodes(graph) if n.op == "call_function" and isinstance(n.meta.get("val"), torch.SymInt)]


def _counts_once(node: Node) -> bool:
    """Tell whether a node is a view to a shape of which the slots decide one size, and one only."""
    if node.target not in SHAPED:
        return False
    open_sizes = [size for size in node.meta["val"].shape if not isinstance(size, int)]
    return len(open_sizes) == 1


@dataclass(frozen=True)
class AnyWidth(Pass):
    """A pass that removes the number of slots from a graph. `slots` is counted at run time.

    Given:   view(x, [1, slots, -1, 16]);  positions = past_len + depth, which is baked
    Result:  view(x, [1, -1, 4, 16]);      positions = past_len + Range(0, slots, 1)
    """

    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        views = [node for node in calls(graph, *SHAPED) if any(isinstance(size, Node) for size in argument(node, 1))]
        for node in views:
            node.update_arg(1, [size if isinstance(size, int) else -1 for size in node.meta["val"].shape])
        baked = [node for node in nodes(graph) if node.op == "get_attr" and node.target in BAKED]
        for node in baked:
            first, step = (constant(graph, f"int_{i}", torch.tensor(i)) for i in (0, 1))
            slots = count_slots(graph)
            with graph.graph.inserting_after(slots):
                count = graph.graph.call_function(aten.squeeze.default, (slots,))
            with graph.graph.inserting_after(count):
                swap(node, emit(graph.graph, "Range", [first, count, step], shape(node), torch.int64))
        return len(views) + len(baked)
