"""A layer that also says how many tokens to draft (AdaEAGLE, Zhang et al. 2024, arXiv:2412.18910).

A small network reads the pending token's embedding beside the last state, and guesses how many drafted tokens the model
would accept. The number is the last one of the next state. So the drafter has it after the call that runs the token.

It departs from the paper in three points: it stands on specc's EAGLE-3 (specc/heads/eagle3.py), the network reads the
state that the layer reads, and both are trained together.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from specc.heads.eagle3 import Eagle3
from specc.heads.head import HeadConfig, rms_norm


class AdaEagle(Eagle3):
    """A recurrent head whose state has one number more: how many drafted tokens will be accepted.

    Args:
        config: its settings are those of `Eagle3`.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        self.size = config.target.hidden_size
        self.blocks = nn.ModuleList([nn.Linear(2 * self.size, 2 * self.size) for _ in range(2)])
        self.length = nn.Linear(2 * self.size, 1)

    @property
    def state_size(self) -> int:
        return self.size + 1

    def fuse(self, taps: Tensor) -> Tensor:
        return functional.pad(super().fuse(taps), (0, 1))

    def forward(self, input_ids: Tensor, position_ids: Tensor, state: Tensor) -> dict[str, Tensor]:
        outputs = super().forward(input_ids, position_ids, state)
        return outputs | {"state": torch.cat([outputs["state"], self.lengths(input_ids, state)], -1)}

    def inputs(self, input_ids: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        return super().inputs(input_ids, state[..., : self.size])

    def lengths(self, input_ids: Tensor, state: Tensor) -> Tensor:
        """Return how many drafted tokens will be accepted, [B, N, 1], if the tokens of the slots are pending."""
        x = torch.cat([rms_norm(part, None, self.eps) for part in self.inputs(input_ids, state)], -1)
        for block in self.blocks:
            x = x + functional.silu(block(x))
        out: Tensor = self.length(x)
        return out
