"""One file for chains of any width: all their graphs say the same, but for how many slots there are.

An engine is a width of it; the runtime loads such a file once and binds a place for each engine's tensors.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import onnx_ir as ir
import torch
from torch.fx import GraphModule, Node

from specc.backends.lowering.onnx_fast import count_slots, emit, shape, swap
from specc.passes.find import aten, calls, constant
from specc.runtime.block import Block
from specc.runtime.manifest import EngineSpec, Tensor
from specc.runtime.tree import Tree

SLOTS = "slots"
SHAPED = {aten.view.default, aten.reshape.default}


def possible(graph: GraphModule, block: Block) -> bool:
    """Whether the block is a chain, all of whose rows are asked for, and nothing but views counts the slots."""
    chain = isinstance(block.topology, Tree) and block.topology.is_chain and not block.last_row
    return chain and all(_counts_once(user) for size in _sizes(graph) for user in size.users)


def traced_at(block: Block) -> Block:
    """The block to trace: a size of one would pass for one that never changes."""
    return replace(block, topology=Tree.chain(max(2, block.slots)))


def name_slots(model: ir.Model) -> None:
    """Give the slots' size a name in the inputs and outputs that have it."""
    for value in (*model.graph.inputs, *model.graph.outputs):
        assert value.name is not None and value.shape is not None
        if _has_slots(value.name, len(value.shape)):
            value.shape = ir.Shape([value.shape[0], SLOTS, *value.shape[2:]])


def sized(tensors: tuple[Tensor, ...], slots: int) -> tuple[Tensor, ...]:
    """The same of a chain of so many slots."""
    return tuple(
        replace(t, shape=(t.shape[0], slots, *t.shape[2:])) if _has_slots(t.name, len(t.shape)) else t for t in tensors
    )


def engine_at(spec: EngineSpec, name: str, block: Block) -> EngineSpec:
    """The engine that runs the same file at the width of `block`."""
    inputs, outputs = sized(spec.inputs, block.slots), sized(spec.outputs, block.slots)
    return replace(spec, name=name, block=block, inputs=inputs, outputs=outputs)


def _has_slots(name: str, rank: int) -> bool:
    return rank > 1 and not name.startswith(("past_key_values.", "present."))


def _sizes(graph: GraphModule) -> list[Node]:
    """The numbers in a graph that follow from how many slots there are."""
    return [n for n in graph.graph.nodes if n.op == "call_function" and isinstance(n.meta.get("val"), torch.SymInt)]


def _counts_once(node: Node) -> bool:
    """Whether it is a view in whose shape one size follows from the slots, and all others are known."""
    if node.target not in SHAPED:
        return False
    return sum(not isinstance(size, int) for size in node.meta["val"].shape) == 1


@dataclass(frozen=True)
class AnyWidth:
    """
    Given:   view(x, [1, slots, -1, 16]);  positions = past_len + depth, which is baked
    Result:  view(x, [1, -1, 4, 16]);      positions = past_len + Range(0, slots, 1), slots being counted
    """

    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        views = [n for n in calls(graph, *SHAPED) if any(isinstance(size, Node) for size in n.args[1])]
        for node in views:
            node.update_arg(1, [size if isinstance(size, int) else -1 for size in node.meta["val"].shape])
        baked = graph.graph.find_nodes(op="get_attr", target="tree_depth")
        for node in baked:
            first, step = (constant(graph, f"int_{i}", torch.tensor(i)) for i in (0, 1))
            with graph.graph.inserting_after(slots := count_slots(graph)):
                count = graph.graph.call_function(aten.squeeze.default, (slots,))
            with graph.graph.inserting_after(count):
                swap(node, emit(graph.graph, "Range", [first, count, step], shape(node), torch.int64))
        return len(views) + len(baked)
