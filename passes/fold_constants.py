"""Small things computed from weights alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from .find import constant, evaluate

LIMIT = 1 << 16  # elements: norms and scales; a weight stays as its checkpoint has it


@dataclass(frozen=True)
class FoldConstants:
    """What depends on no input is computed once, here.

    Given:   y = n * (weight + 1)
    Result:  y = n * folded_0
    """

    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        fixed: set[Node] = set()
        for node in graph.graph.nodes:
            inputs = node.all_input_nodes
            if node.op == "get_attr" or (node.op == "call_function" and inputs and fixed.issuperset(inputs)):
                fixed.add(node)
        changed = 0
        for node in list(graph.graph.nodes):
            value = node.meta.get("val")
            small = isinstance(value, Tensor) and value.numel() <= LIMIT
            if node.op != "call_function" or node not in fixed or not small or fixed.issuperset(node.users):
                continue
            with torch.no_grad():
                result = evaluate(graph, node, {})
            if result is not None:
                new = constant(graph, f"folded_{changed}", result.contiguous())
                node.replace_all_uses_with(new)
                changed += 1
        return changed
