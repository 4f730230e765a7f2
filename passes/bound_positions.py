"""Learned positions, for slots past the last of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.fx import GraphModule, Node

from .find import aten, calls, evaluate, placeholder


@dataclass(frozen=True)
class BoundPositions:
    """A block's unused slots, and those that reach beyond the context, are run too; their rows are never kept.

    Given:   y = embedding(table, f(position_ids))
    Result:  y = embedding(table, clamp(f(position_ids), max=rows of the table - 1))
    """

    positions: int
    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        position_ids, changed = placeholder(graph, "position_ids"), 0
        for node in calls(graph, aten.embedding.default):
            table, index = node.args[:2]
            assert isinstance(table, Node) and isinstance(index, Node)
            rows = table.meta["val"].shape[0]
            reached = evaluate(graph, index, {position_ids: torch.arange(self.positions)[None]})
            if reached is not None and int(reached.max()) >= rows:
                with graph.graph.inserting_before(node):
                    bound = graph.graph.call_function(aten.clamp.default, (index, None, rows - 1))
                bound.meta = dict(index.meta)
                node.replace_input_with(index, bound)
                changed += 1
        return changed
