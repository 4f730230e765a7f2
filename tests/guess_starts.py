"""A small module that gives the states with which the slots of guesses begin. It stands for a trained head."""

from __future__ import annotations

import torch
from small_graphs import small
from torch import Tensor, nn
from torch.fx import GraphModule


class Starts(nn.Module):
    """Two guesses behind a token. One begins with the token's state, the other with half of it, each plus a vector."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(2, size, generator=torch.Generator().manual_seed(3)))

    def forward(self, states: Tensor) -> Tensor:
        return torch.stack([states, 0.5 * states], 2) + self.vectors


def module_of(size: int) -> GraphModule:
    """Return the graph of the module for hidden states of a size."""
    return small(Starts(size), "starts", states=torch.ones(1, 7, size))
