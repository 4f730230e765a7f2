"""Take a topology that changes each step as an input: its parent vector."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

from .find import aten, constant, first_call, new_input, placeholder
from .protocol import Pass


@dataclass(frozen=True)
class ParentsInput(Pass):
    """A pass that computes the mask and the depths from the parent of each slot.

    Edges and the identity say which slots are reached in one step or none. Squaring that matrix doubles the steps;
    after enough squarings it holds all ancestors. A slot's depth is the number of its ancestors less itself.

    Given:   inputs mask, depth
    Result:  input parents [slots];  reach = eye | (parents == column);  reach = reach @ reach > 0, repeated;
             mask = reach;  depth = sum(reach) - 1
    """

    slots: int

    def __call__(self, graph: GraphModule) -> int:
        mask, depth = self._ancestors(graph)
        for name, new in (("mask", mask), ("depth", depth)):
            old = placeholder(graph, name)
            old.replace_all_uses_with(new)
            graph.graph.erase_node(old)
        return 2

    def _ancestors(self, graph: GraphModule) -> tuple[Node, Node]:
        """Insert the computation; return the mask [slots, slots] bool and the depths [slots] int64."""
        g, n = graph.graph, self.slots
        parents = new_input(graph, "parents", torch.arange(n) - 1)
        column = constant(graph, "slot_columns", torch.arange(n)[None])
        eye = constant(graph, "slot_eye", torch.eye(n))
        with g.inserting_before(first_call(graph)):
            below = g.call_function(aten.unsqueeze.default, (parents, 1))
            edges = g.call_function(aten.eq.Tensor, (below, column))
            edges = g.call_function(aten._to_copy.default, (edges,), {"dtype": torch.float32})
            reach = g.call_function(aten.add.Tensor, (edges, eye))
            for _ in range((n - 1).bit_length()):  # the deepest path has n - 1 steps
                square = g.call_function(aten.matmul.default, (reach, reach))
                reach = g.call_function(aten.clamp.default, (square, 0, 1))
            mask = g.call_function(aten.gt.Scalar, (reach, 0))
            count = g.call_function(aten.sum.dim_IntList, (reach, [1]))
            count = g.call_function(aten._to_copy.default, (count,), {"dtype": torch.long})
            depth = g.call_function(aten.sub.Tensor, (count, 1))
        mask.meta["val"], depth.meta["val"] = torch.ones(n, n, dtype=torch.bool), torch.arange(n)
        return mask, depth
