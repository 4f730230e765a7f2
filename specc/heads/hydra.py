"""Heads that read the drafted tokens before them (Ankner et al. 2024, Hydra and Hydra++, arXiv:2402.05109).

Head k reads the model's last state and the embeddings of the k + 1 tokens since. Hydra++ has deeper heads, and before
them a decoder layer over the model's states.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from specc.heads.head import HeadConfig, linear, option, setting
from specc.heads.sequential import Sequential


class Hydra(Sequential):
    """K heads, each an MLP of its own over all that was drafted. Drafts that are deeper than K use the last one.

    The memory has three parts: K - 1 flags, of which as many are 1 as tokens were drafted; the model's last state; and
    the embeddings of the last K - 1 tokens, the newest first. All first layers run, and the flags choose one.

    Args:
        config: its settings are `depths` (K, 2 at least), `hidden` (the width of an MLP), those of `Sequential`, and
            `mlp_layers` (1): hidden layers of an MLP. Those after the first are shared by the heads.
    """

    def __init__(self, config: HeadConfig) -> None:
        size, depths = config.target.hidden_size, int(setting(config, "depths"))
        super().__init__(config, memory=(depths - 1, size, (depths - 1) * size))
        self.depths, hidden = depths, int(setting(config, "hidden"))
        self.first = nn.Linear((1 + depths) * size, depths * hidden)
        self.second = linear(depths * hidden, size)
        self.more = nn.ModuleList(linear(size, size) for _ in range(int(option(config, "mlp_layers", 1)) - 1))
        for parameter in self.added():
            nn.init.zeros_(parameter)

    def correct(self, x: Tensor, token: Tensor, last: Tensor, memory: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        flags, state, before = memory
        state = state + (1 - flags[..., :1]) * last  # Of the root, the state is the last one itself.
        tokens = torch.cat([token, before], -1)
        reached = functional.pad(flags, (1, 0), value=1.0)
        at_depth = reached - functional.pad(flags, (0, 1))  # 1 at the depth of the slot
        hidden = torch.unflatten(functional.silu(self.first(torch.cat([state, tokens], -1))), -1, (self.depths, -1))
        y = self.second((hidden * at_depth[..., None]).flatten(-2))
        for layer in self.more:
            y = y + functional.silu(layer(y))
        return x + y, [reached[..., :-1], state, tokens[..., : -x.shape[-1]]]

    def added(self) -> list[nn.Parameter]:
        return list(self.second.parameters())
