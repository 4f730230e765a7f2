"""Feed each slot a weighted sum of the embeddings of all slots' tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import GraphModule

from specc.runtime.errors import PassError

from .arguments import node_arg
from .find import SAME_VALUES, aten, calls, new_input, placeholder
from .protocol import Pass

EMBEDDINGS = (aten.embedding.default, torch.ops.specc.panel_embedding.default)


@dataclass(frozen=True)
class MixSlots(Pass):
    """A pass that lets a slot take several tokens at once, each with a weight.

    Row i of the new input says how much each slot's token counts in slot i. The identity leaves all as it was. The
    slots' positions and masks stay.

    Given:   x = embedding(table, input_ids)
    Result:  x = matmul(mixture, embedding(table, input_ids))       mixture [1, slots, slots] float32 being a new input
    """

    slots: int

    def __call__(self, graph: GraphModule) -> int:
        ids = {placeholder(graph, "input_ids")}
        for view in calls(graph, *SAME_VALUES):
            ids |= {view} if node_arg(view, 0) in ids else set()
        tables = [node for node in calls(graph, *EMBEDDINGS) if not ids.isdisjoint(node.all_input_nodes)]
        if not tables:
            raise PassError("no embedding reads input_ids")
        mixture = new_input(graph, "mixture", torch.eye(self.slots)[None])
        for node in tables:
            users = list(node.users)
            with graph.graph.inserting_after(node):
                mixed = graph.graph.call_function(aten.matmul.default, (mixture, node))
            mixed.meta["val"] = node.meta["val"]
            for user in users:
                user.replace_input_with(node, mixed)
        return len(tables)
