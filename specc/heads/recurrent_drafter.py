"""A small recurrent network over the drafted tokens (Zhang et al. 2024, Recurrent Drafter, arXiv:2403.09919)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from specc.heads.head import HeadConfig, linear, setting
from specc.heads.sequential import Sequential


class RecurrentDrafter(Sequential):
    """A head that reads the model's last state, and a recurrent state of the tokens since: s <- silu(W token + U s).

    The memory has a flag that is 1 once a token was drafted, the model's last state, and s.

    Args:
        config: its settings are `recurrent` (the size of s), `hidden` (the width of the MLP over both states), and
            those of `Sequential`.
    """

    def __init__(self, config: HeadConfig) -> None:
        size, own_size = config.target.hidden_size, int(setting(config, "recurrent"))
        super().__init__(config, memory=(1, size, own_size))
        hidden = int(setting(config, "hidden"))
        self.input, self.previous = nn.Linear(size, own_size), linear(own_size, own_size)
        self.first, self.second = nn.Linear(size + own_size, hidden), linear(hidden, size)
        for parameter in self.added():
            nn.init.zeros_(parameter)

    def correct(self, x: Tensor, token: Tensor, last: Tensor, memory: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        flag, state, s = memory
        state = state + (1 - flag) * last  # Of the root, the state is the last one itself.
        s = functional.silu(self.input(token) + self.previous(s))
        x = x + self.second(functional.silu(self.first(torch.cat([state, s], -1))))
        return x, [torch.ones_like(flag), state, s]

    def added(self) -> list[nn.Parameter]:
        return list(self.second.parameters())
