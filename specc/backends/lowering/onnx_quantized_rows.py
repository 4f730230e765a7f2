"""Lower the reading of rows in 4 or 8 bits, and the writing of exact rows beside it, to standard operators of ONNX.

GroupQueryAttention reads rows in 4 bits too, but by one scale a channel for all rows, which is too coarse for a draft:
docs/measurements.md has the figures.

R  rows that can have codes      n  rows of which codes are read      G  rows of a group      D  size of a head
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir
import torch
from torch.fx import GraphModule, Node

from specc.backends.lowering.emit import emit, shape, swap_each
from specc.passes import Pass
from specc.passes.arguments import node_arg
from specc.passes.find import DEQUANTIZED_ROWS, WRITE_ROWS, constant, placeholder
from specc.runtime.quantized_rows import LOWER_MIDDLE, LOWER_STEPS


def lowering(dtype: torch.dtype = torch.float32, *, slots: int = 0) -> list[Pass]:
    """Return the passes of this lowering. A graph without rows in codes stays as it is.

    Args:
        dtype: The type of the exact rows.
        slots: Read only the rows in use and a place for each of these slots, at the price of shapes that are known at
            run time alone. 0: read all rows.
    """
    return [WriteRows(dtype), DequantizedRows(dtype, slots)]


@dataclass(frozen=True)
class WriteRows(Pass):
    """A pass that writes new rows into a cache.

    Given:   rows = specc.write_rows(past, new, past_len)
    Result:  rows = TensorScatter(past, new, past_len)
    """

    dtype: torch.dtype
    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        def write(node: Node) -> Node:
            past, new, past_len = (node_arg(node, i) for i in range(3))
            inputs = [past, new, past_len]
            return emit(graph.graph, "TensorScatter", inputs, shape(past), self.dtype, axis=-2, mode="linear")

        return swap_each(graph, WRITE_ROWS, write)


@dataclass(frozen=True)
class DequantizedRows(Pass):
    """A pass that turns codes into rows.

    Given:   rows = specc.dequantized_rows(past, codes, scales, least, quantized_rows, lower)
    Result:  numbers = Reshape(Cast(Concat(codes & 15, codes >> 4)), [1, heads, groups, G, D])
             numbers += (numbers of lower - 7.5) / 16                             if there is `lower`
             old = Where(row < quantized_rows, Reshape(numbers * scales + least), past[:n])
             rows = Concat(old, past[n:])                   n being R, or with `slots` the rows that have codes

    Attention writes the slots' rows behind the rows in use. So with `slots` the result has a place for each of them.
    """

    dtype: torch.dtype
    slots: int
    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        return swap_each(graph, DEQUANTIZED_ROWS, lambda node: self._rows(graph, node))

    def _rows(self, graph: GraphModule, node: Node) -> Node:
        """Insert what replaces one call."""
        past, codes, scales, least, count = (node_arg(node, i) for i in range(5))
        g, (_, heads, capacity, size), rows = graph.graph, shape(past), shape(codes)[2]
        groups, group = shape(scales)[2], rows // shape(scales)[2]
        end, group_end, used = self._ends(graph, count, rows, group, capacity)
        before = constant(graph, "zero_rows", torch.zeros(1, dtype=torch.long))
        grouped, flat = [1, heads, groups, group, size], [1, heads, rows, size]
        numbers = self._numbers(graph, self._slice(graph, codes, before, end, torch.uint8), flat)
        if len(node.args) > 5:
            lower = self._numbers(graph, self._slice(graph, node_arg(node, 5), before, end, torch.uint8), flat)
            lower = emit(g, "Sub", [lower, self._number(graph, "lower_middle", LOWER_MIDDLE)], flat, self.dtype)
            lower = emit(g, "Div", [lower, self._number(graph, "lower_steps", LOWER_STEPS)], flat, self.dtype)
            numbers = emit(g, "Add", [numbers, lower], flat, self.dtype)
        numbers = self._reshape(graph, numbers, grouped)
        scale, offset = (self._slice(graph, part, before, group_end, self.dtype) for part in (scales, least))
        product = emit(g, "Mul", [numbers, scale], grouped, self.dtype)
        total = emit(g, "Add", [product, offset], grouped, self.dtype)
        old = self._reshape(graph, total, flat)
        numbered = constant(graph, "row_numbers", torch.arange(rows).view(1, 1, rows, 1))
        numbered = self._slice(graph, numbered, before, end, torch.long)
        coded = emit(g, "Less", [numbered, count], [1, 1, rows, 1], torch.bool)
        exact = self._slice(graph, past, before, end, self.dtype)
        old = emit(g, "Where", [coded, old, exact], flat, self.dtype)
        new = self._slice(graph, past, end, used, self.dtype)
        return emit(g, "Concat", [old, new], shape(past), self.dtype, axis=2)

    def _numbers(self, graph: GraphModule, packed: Node, sizes: Sequence[int]) -> Node:
        """Insert the numbers of bytes that hold two of 4 bits, all low ones before all others in a row."""
        g, halves = graph.graph, [*sizes[:3], sizes[3] // 2]
        parts = [
            emit(g, "BitwiseAnd", [packed, _byte(graph, 15)], halves, torch.uint8),
            emit(g, "BitShift", [packed, _byte(graph, 4)], halves, torch.uint8, direction="RIGHT"),
        ]
        both = emit(g, "Concat", parts, sizes, torch.uint8, axis=3)
        kind = int(ir.DataType.FLOAT16 if self.dtype == torch.float16 else ir.DataType.FLOAT)
        return emit(g, "Cast", [both], sizes, self.dtype, to=kind)

    def _number(self, graph: GraphModule, name: str, value: float) -> Node:
        """Return a constant of the type of the rows."""
        return constant(graph, name, torch.tensor(value, dtype=self.dtype))

    def _ends(self, graph: GraphModule, count: Node, rows: int, group: int, capacity: int) -> tuple[Node, Node, Node]:
        """Return the ends [1] of the rows of which codes are read, of their groups, and of the rows in use.

        With slots one group is read at least, since a view of nothing has no open size.
        """
        if not self.slots:
            ends = {"coded_rows": rows, "coded_groups": rows // group, "all_rows": capacity}
            return tuple(constant(graph, name, torch.tensor([end])) for name, end in ends.items())  # type: ignore[return-value]
        g, size = graph.graph, constant(graph, "group_rows", torch.tensor([group]))
        end = emit(g, "Max", [count, size], [1], torch.long)
        groups = emit(g, "Div", [end, size], [1], torch.long)
        new = constant(graph, "new_rows", torch.tensor([self.slots]))
        used = emit(g, "Add", [placeholder(graph, "past_len"), new], [1], torch.long)
        return end, groups, emit(g, "Max", [used, end], [1], torch.long)

    def _slice(self, graph: GraphModule, x: Node, start: Node, end: Node, dtype: torch.dtype) -> Node:
        """Insert x[:, :, start:end]."""
        axis = constant(graph, "row_axis", torch.tensor([2]))
        return emit(graph.graph, "Slice", [x, start, end, axis], shape(x), dtype)

    def _reshape(self, graph: GraphModule, x: Node, sizes: Sequence[int]) -> Node:
        """Insert x in another shape, whose size of axis 2 is left open."""
        open_sizes = torch.tensor([*sizes[:2], -1, *sizes[3:]])
        to = constant(graph, f"open_shape_{len(sizes)}", open_sizes)
        return emit(graph.graph, "Reshape", [x, to], sizes, self.dtype)


def _byte(graph: GraphModule, value: int) -> Node:
    return constant(graph, f"byte_{value}", torch.tensor([value], dtype=torch.uint8))
