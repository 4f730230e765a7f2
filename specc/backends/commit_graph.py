"""The small graph that moves accepted rows to their places, where the host cannot reach the cache."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from specc.runtime.block import Block, Frontier
from specc.runtime.manifest import Tensor
from specc.runtime.tree import Tree

OPSET = 24


def moves(block: Block) -> bool:
    """Whether slots that are kept may lie elsewhere than in front: a frontier keeps all that it grows."""
    topology = block.topology
    return not isinstance(topology, Frontier) and not (isinstance(topology, Tree) and topology.is_chain)


def commit(inputs: Sequence[Tensor], slots: int, from_rows: bool) -> ir.Model:
    """Of an engine with these inputs.

    index [slots] int64 names the slots that are kept, in order; what it names beyond their count lands in scratch
    rows, so no shape depends on what was accepted. `past_len` [1] is the first row written.
    Rows are read from the engine's outputs `rows.*`, or from the cache itself.
    """
    index, past_len = _value("index", "int64", (slots,)), _value("past_len", "int64", (1,))
    axis, nodes = ir.AttrInt64("axis", 2), []
    where = index if from_rows else ir.Value(name="row")
    if not from_rows:
        nodes.append(ir.Node("", "Add", [index, past_len], outputs=[where]))
    given, made = [index, past_len], []
    for tensor in (t for t in inputs if t.name.startswith("past_key_values.")):
        past, row = _value(tensor.name, tensor.dtype, tensor.shape), tensor.name.partition(".")[2]
        source = past
        if from_rows:
            _, heads, _, size = tensor.shape
            source = _value(f"rows.{row}", tensor.dtype, (1, heads, slots, size))
            given.append(source)
        given.append(past)
        kept, present = ir.Value(name=f"kept.{row}"), _value(f"present.{row}", tensor.dtype, tensor.shape)
        nodes.append(ir.Node("", "Gather", [source, where], [axis], outputs=[kept]))
        scatter = [ir.AttrInt64("axis", -2), ir.AttrString("mode", "linear")]
        nodes.append(ir.Node("", "TensorScatter", [past, kept, past_len], scatter, outputs=[present]))
        made.append(present)
    graph = ir.Graph(given, made, nodes=nodes, opset_imports={"": OPSET}, name="commit")
    return ir.Model(graph, ir_version=11)


def _value(name: str, dtype: str, shape: Sequence[int]) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(ir.DataType[dtype.upper()]), shape=ir.Shape(shape))
