"""The small graph that commits accepted rows, for a cache that the host cannot reach."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from specc.runtime.block import Block, Frontier
from specc.runtime.manifest import Tensor
from specc.runtime.tree import Tree

OPSET = 24
IR_VERSION = 11  # the version of the file format that came with opset 24


def moves(block: Block) -> bool:
    """Tell whether accepted slots may lie behind rejected ones, so that their rows must be moved.

    A chain is accepted from its front, and a frontier is accepted whole.
    """
    topology = block.topology
    return not isinstance(topology, Frontier) and not (isinstance(topology, Tree) and topology.is_chain)


def commit(inputs: Sequence[Tensor], slots: int, from_rows: bool) -> ir.Model:
    """Make the graph that moves the rows of accepted slots to the rows from `past_len` on.

    Its inputs are `index` [slots] int64, `past_len` [1] int64, and the caches, followed by their new rows if
    `from_rows`. `index` names the accepted slots in order. It always has `slots` entries, so that no shape depends on
    how many were accepted: what the entries behind them name lands in scratch rows.

    Args:
        inputs: The inputs of the engine whose rows are committed; the caches are among them.
        slots: The number of slots of that engine.
        from_rows: Read the rows from the engine's outputs `rows.*`. If not, read them from the cache itself.
    """
    index, past_len = _value("index", "int64", (slots,)), _value("past_len", "int64", (1,))
    nodes: list[ir.Node] = []
    graph_inputs, graph_outputs = [index, past_len], []
    source_row = index
    if not from_rows:
        source_row = ir.Value(name="row")
        nodes.append(ir.Node("", "Add", [index, past_len], outputs=[source_row]))
    for tensor in (t for t in inputs if t.name.startswith("past_key_values.")):
        past, row = _value(tensor.name, tensor.dtype, tensor.shape), tensor.name.partition(".")[2]
        source = past
        if from_rows:
            _, heads, _, size = tensor.shape
            source = _value(f"rows.{row}", tensor.dtype, (1, heads, slots, size))
            graph_inputs.append(source)
        graph_inputs.append(past)
        accepted, present = ir.Value(name=f"kept.{row}"), _value(f"present.{row}", tensor.dtype, tensor.shape)
        nodes.append(ir.Node("", "Gather", [source, source_row], [ir.AttrInt64("axis", 2)], outputs=[accepted]))
        scatter = [ir.AttrInt64("axis", -2), ir.AttrString("mode", "linear")]
        nodes.append(ir.Node("", "TensorScatter", [past, accepted, past_len], scatter, outputs=[present]))
        graph_outputs.append(present)
    graph = ir.Graph(graph_inputs, graph_outputs, nodes=nodes, opset_imports={"": OPSET}, name="commit")
    return ir.Model(graph, ir_version=IR_VERSION)


def _value(name: str, dtype: str, shape: Sequence[int]) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(ir.DataType.from_numpy(np.dtype(dtype))), shape=ir.Shape(shape))
