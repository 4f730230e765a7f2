"""Lower attention to rows that other blocks write to products and a softmax, which any runtime of ONNX runs.

N  slots      C  capacity, or the rows in use      H  heads      G  heads of keys and values      D  size of a head
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.fx import GraphModule, Node

from specc.backends.lowering.emit import emit, shape, swap_each
from specc.backends.lowering.masks import HIDDEN
from specc.passes import Pass
from specc.passes.arguments import float_arg, node_arg
from specc.passes.find import ROWS_ATTENTION, aten, constant


@dataclass(frozen=True)
class RowsAttentions(Pass):
    """A pass that writes out attention to the rows of another block. Heads that share keys are one product.

    Given:   out = specc.rows_attention(q, past_key, past_value, rows, positions, scale)
    Result:  keys, values, numbers = past_key[:, :, :rows], past_value[:, :, :rows], [0 … rows)       with slices
             visible = numbers < clamp(minimum(positions, rows), 1)
             out = softmax(where(visible, q @ keys.T * scale, HIDDEN)) @ values

    Attributes:
        slices: Read the rows in use alone. Without it, no shape depends on how many they are.
        dtype: The type of the cache.
    """

    slices: bool
    dtype: torch.dtype = torch.float32
    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        return swap_each(graph, ROWS_ATTENTION, lambda node: self._attend(graph, node))

    def _attend(self, graph: GraphModule, node: Node) -> Node:
        insert = graph.graph.call_function
        query, keys, values, rows, positions = (node_arg(node, index) for index in range(5))
        (_, heads, _, size), (_, groups, capacity, _) = shape(query), shape(keys)
        end = insert(aten.clamp.default, (rows, 1))
        numbers = constant(graph, "row_numbers", torch.arange(capacity).view(1, 1, capacity, 1))
        if self.slices:
            keys, values = (self._first(graph, x, end, self.dtype) for x in (keys, values))
            numbers = self._first(graph, numbers, end, torch.long)
        limits = insert(aten.clamp.default, (insert(aten.minimum.default, (positions, end)), 1))
        limits = insert(aten.reshape.default, (limits, [1, 1, -1, 1]))
        visible = insert(aten.lt.Tensor, (insert(aten.transpose.int, (numbers, 2, 3)), limits))
        grouped = insert(aten.reshape.default, (query, [groups, heads // groups, -1, size]))
        scores = insert(aten.matmul.default, (grouped, insert(aten.permute.default, (keys, [1, 0, 3, 2]))))
        scores = insert(aten.mul.Tensor, (scores, float_arg(node, 5)))
        scores = insert(aten.where.ScalarOther, (visible, scores, HIDDEN))
        weights = insert(aten.softmax.int, (scores, -1))
        out = insert(aten.matmul.default, (weights, insert(aten.transpose.int, (values, 0, 1))))
        return insert(aten.reshape.default, (out, [1, heads, -1, size]))

    def _first(self, graph: GraphModule, x: Node, end: Node, dtype: torch.dtype) -> Node:
        """Insert x[:, :, :end]. Its stated size is that of x."""
        start, axis = constant(graph, "first_row", torch.tensor([0])), constant(graph, "row_axis", torch.tensor([2]))
        return emit(graph.graph, "Slice", [x, start, end, axis], shape(x), dtype)
