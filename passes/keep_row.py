"""The head on one row only."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import GraphModule

from specc.runtime.errors import PassError

from .find import LINEARS, aten, new_input, outputs


@dataclass(frozen=True)
class KeepRow:
    """Prefill wants the next token, not one after each of the prompt's.

    Given:   logits = linear(hidden, head)
    Result:  logits = linear(index_select(hidden, 1, row), head)       row [1] int64 being a new input
    """

    def __call__(self, graph: GraphModule) -> int:
        head = outputs(graph)["logits"]
        after = [head]
        while head.target not in LINEARS:
            inputs = [i for i in head.all_input_nodes if i.op == "call_function"]
            if len(inputs) != 1:
                raise PassError(f"the logits come from {head.name}, where no linear head is in sight")
            head = inputs[0]
            after.append(head)
        row, hidden = new_input(graph, "row", torch.zeros(1, dtype=torch.long)), head.all_input_nodes[0]
        with graph.graph.inserting_before(head):
            head.replace_input_with(hidden, graph.graph.call_function(aten.index_select.default, (hidden, 1, row)))
        for node in after:
            node.meta["val"] = node.meta["val"][:, :1]
        return 1
