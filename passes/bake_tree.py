"""Bake a topology that never changes into the graph."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import GraphModule

from specc.runtime.tree import Tree

from .find import constant, placeholder
from .protocol import Pass


@dataclass(frozen=True)
class BakeTree(Pass):
    """A pass that turns the inputs for a topology into constants. Chains and look-ahead windows are trees too.

    The mask holds each slot's ancestors, itself included; a slot's depth is its position less that of the root.

    Given:   inputs mask, depth
    Result:  mask = tree_mask [slots, slots];  depth = tree_depth [slots]
    """

    tree: Tree

    def __call__(self, graph: GraphModule) -> int:
        for name, value in (("mask", self.tree.mask), ("depth", self.tree.depth)):
            old = placeholder(graph, name)
            old.replace_all_uses_with(constant(graph, f"tree_{name}", torch.from_numpy(value.copy())))
            graph.graph.erase_node(old)
        return 2
