"""Compute small values that depend on weights alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.fx import GraphModule

from .find import computed_from, constant, evaluate, nodes, tensor_value
from .protocol import Pass

LIMIT = 1 << 16  # elements: enough for norms and scales. A larger weight stays as its checkpoint has it


@dataclass(frozen=True)
class FoldConstants(Pass):
    """A pass that replaces small values that depend on no input by constants.

    Given:   y = n * (weight + 1)
    Result:  y = n * folded_0
    """

    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        fixed = computed_from(graph, ())
        changed = 0
        for node in nodes(graph):
            value = tensor_value(node)
            small = value is not None and value.numel() <= LIMIT
            if node.op != "call_function" or node not in fixed or not small or fixed.issuperset(node.users):
                continue
            with torch.no_grad():
                result = evaluate(graph, node, {})
            if result is not None:
                node.replace_all_uses_with(constant(graph, f"folded_{changed}", result.contiguous()))
                changed += 1
        return changed
