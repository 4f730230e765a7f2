"""Write a recurrent cell out, slot by slot."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.fx import GraphModule, Node

from .arguments import node_arg
from .find import ADD, CELLS, MUL, aten, calls, constant, tensor_value
from .protocol import Pass


@dataclass(frozen=True)
class UnrollCells(Pass):
    """A pass that writes an LSTM out as products, so that all shapes are static and no backend needs an LSTM.

    Given:   y = specc.cells(gates, weight, start, starts)
    Result:  y = cat(cell(0), cell(1), …)        cell(i) = the cell of slot i, from `start` or from cell(i - 1)

    The weight is one constant, which all slots read.
    """

    slots: int
    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        found_cells = calls(graph, CELLS)
        for node in found_cells:
            with graph.graph.inserting_before(node):
                rows = _Cells(graph, node).rows(self.slots)
                joined = graph.graph.call_function(aten.cat.default, (rows, 1))
            joined.meta = dict(node.meta)
            node.replace_all_uses_with(joined)
            graph.graph.erase_node(node)
        return len(found_cells)


class _Cells:
    """A writer of the cells of one call. Every node has a value of static shape."""

    def __init__(self, graph: GraphModule, node: Node) -> None:
        self.graph, self.module = graph, node.meta.get("nn_module_stack")
        self.gates, self.weight, self.start, self.starts = (node_arg(node, index) for index in range(4))
        value = tensor_value(self.weight)
        assert value is not None
        self.size, self.like = value.shape[1], value

    def rows(self, slots: int) -> list[Node]:
        """Return for each slot its output, its cell and the output before it, [1, 1, 3 d]."""
        rows, last = [], constant(self.graph, "cells_start", torch.zeros(1, 1, 2 * self.size))
        for slot in range(slots):
            gate, begin, begins = (self._slot(x, slot) for x in (self.gates, self.start, self.starts))
            last = self._call(ADD, last, self._call(MUL, begins, self._call(aten.sub.Tensor, begin, last)))
            output, cell = self._part(last, 0), self._part(last, 1)
            gate = self._call(ADD, gate, self._call(aten.linear.default, output, self.weight))
            enter, keep, new, leave = (self._part(gate, number) for number in range(4))
            enter, keep, leave = (self._call(aten.sigmoid.default, x) for x in (enter, keep, leave))
            new = self._call(MUL, enter, self._call(aten.tanh.default, new))
            cell = self._call(ADD, self._call(MUL, keep, cell), new)
            after = self._call(MUL, leave, self._call(aten.tanh.default, cell))
            last = self._join(after, cell)
            rows.append(self._join(last, output))
        return rows

    def _slot(self, x: Node, slot: int) -> Node:
        value = tensor_value(x)
        assert value is not None
        return self._made(aten.slice.Tensor, (x, 1, slot, slot + 1), value.shape[-1])

    def _part(self, x: Node, number: int) -> Node:
        return self._made(aten.slice.Tensor, (x, 2, number * self.size, (number + 1) * self.size), self.size)

    def _join(self, *parts: Node) -> Node:
        return self._made(aten.cat.default, (list(parts), -1), sum(part.meta["val"].shape[-1] for part in parts))

    def _call(self, target: Callable[..., Any], *args: Node) -> Node:
        widths = [arg.meta["val"].shape[-1] for arg in args]
        return self._made(target, args, 4 * self.size if target is aten.linear.default else max(widths))

    def _made(self, target: Callable[..., Any], args: tuple[Any, ...], width: int) -> Node:
        """Insert a call whose value is [1, 1, width]."""
        node = self.graph.graph.call_function(target, args)
        node.meta["val"] = self.like.new_empty(1, 1, width)
        if self.module is not None:
            node.meta["nn_module_stack"] = self.module
        return node
