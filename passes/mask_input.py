"""A frontier: the mask and the depths stay inputs, of a fixed width."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import GraphModule

from .find import placeholder


@dataclass(frozen=True)
class MaskInput:
    """
    Given:   inputs mask [slots, span], depth [slots], of any size
    Result:  the same, of this size
    """

    slots: int
    span: int

    def __call__(self, graph: GraphModule) -> int:
        placeholder(graph, "mask").meta["val"] = torch.ones(self.slots, self.span, dtype=torch.bool)
        placeholder(graph, "depth").meta["val"] = torch.arange(self.slots)
        return 2
