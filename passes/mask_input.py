"""Fix the width of a frontier, whose mask and depths stay inputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import GraphModule

from .find import placeholder
from .protocol import Pass


@dataclass(frozen=True)
class MaskInput(Pass):
    """A pass that gives a fixed size to the inputs that place a frontier's slots in a tree.

    Given:   inputs mask [any, any], depth [any]
    Result:  inputs mask [slots, span], depth [slots]
    """

    slots: int
    span: int

    def __call__(self, graph: GraphModule) -> int:
        placeholder(graph, "mask").meta["val"] = torch.ones(self.slots, self.span, dtype=torch.bool)
        placeholder(graph, "depth").meta["val"] = torch.arange(self.slots)
        return 2
