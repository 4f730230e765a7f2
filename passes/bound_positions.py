"""Keep positions within tables that have a row for each position."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.fx import GraphModule, Node

from .arguments import argument, node_arg
from .find import aten, calls, evaluate, placeholder
from .protocol import Pass


@dataclass(frozen=True)
class BoundPositions(Pass):
    """A pass that bounds which rows of a table are read: one of learned positions, or of a rotary embedding's angles.

    A block also runs its unused slots, and slots that reach beyond the context. Their rows are never kept, but they
    must not read past the table.

    Given:   y = embedding(table, f(position_ids)), or table[f(position_ids)]
    Result:  f(position_ids) is replaced by clamp(f(position_ids), max=rows of the table - 1)
    """

    positions: int
    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        changed = 0
        all_positions = {placeholder(graph, "position_ids"): torch.arange(self.positions)[None]}
        for node in calls(graph, aten.embedding.default, aten.index.Tensor):
            table, index = node_arg(node, 0), _index(node)
            if index is None:
                continue
            rows = table.meta["val"].shape[0]
            indices = evaluate(graph, index, all_positions)
            if indices is not None and int(indices.max()) >= rows:
                with graph.graph.inserting_before(node):
                    bound = graph.graph.call_function(aten.clamp.default, (index, None, rows - 1))
                bound.meta = dict(index.meta)
                node.replace_input_with(index, bound)
                changed += 1
        return changed


def _index(node: Node) -> Node | None:
    """Return what says which rows a node reads; None if it reads by several indices."""
    if node.target is aten.embedding.default:
        return node_arg(node, 1)
    indices = argument(node, 1)
    return indices[0] if len(indices) == 1 else None
