"""Run the model's head on one row."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import GraphModule

from .find import aten, new_input, path_to_head
from .protocol import Pass


@dataclass(frozen=True)
class KeepRow(Pass):
    """A pass that keeps one row before the head: prefill needs the token after the prompt, not one after each of it.

    Given:   logits = linear(hidden, head)
    Result:  logits = linear(index_select(hidden, 1, row), head)       row [1] int64 being a new input
    """

    def __call__(self, graph: GraphModule) -> int:
        path = path_to_head(graph)  # These nodes have one row afterwards.
        head = path[-1]
        row, hidden = new_input(graph, "row", torch.zeros(1, dtype=torch.long)), head.all_input_nodes[0]
        with graph.graph.inserting_before(head):
            head.replace_input_with(hidden, graph.graph.call_function(aten.index_select.default, (hidden, 1, row)))
        for node in path:
            node.meta["val"] = node.meta["val"][:, :1]
        return 1
