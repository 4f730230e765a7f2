"""A topology that never changes, baked in."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import GraphModule

from specc.runtime.tree import Tree

from .find import constant, placeholder


@dataclass(frozen=True)
class BakeTree:
    """Ancestors become a constant mask, depths constant position offsets. Chains and look-ahead windows are trees.

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
