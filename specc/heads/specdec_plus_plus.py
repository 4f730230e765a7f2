"""A head that foresees whether a drafted token is accepted (SpecDec++, Huang et al. 2024, arXiv:2405.19715).

It reads the draft model's state after the token, behind the last norm. Residual blocks lead to one number, the logit of
the probability that the target accepts the token, if it accepts those before. The number is the state that the draft
model's engine returns, so the head is computed with each draft step and needs no block of its own.

It departs from the paper in one point: one logit takes the place of two classes, which means the same.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from specc.heads.head import Head, HeadConfig, setting


class AcceptanceHead(Head):
    """Residual blocks over a draft model's last state.

    Attributes:
        mean: [d]: that of the states that it was trained on.
        scale: [d]: their standard deviation.

    Args:
        config: its target is the draft model. Its one tap is the number of layers, which stands for the state behind
            the last norm. The setting is `blocks`, their number.
    """

    attends = False
    reads = "assistant"
    mean: Tensor
    scale: Tensor

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        size = config.target.hidden_size
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("scale", torch.ones(size))
        self.blocks = nn.ModuleList([nn.Linear(size, size) for _ in range(int(setting(config, "blocks")))])
        self.score = nn.Linear(size, 1)

    @property
    def state_size(self) -> int:
        return 1

    def fuse(self, taps: Tensor) -> Tensor:
        x = (taps - self.mean) / self.scale
        for block in self.blocks:
            x = x + functional.silu(block(x))
        out: Tensor = self.score(x)
        return out

    def forward(self, input_ids: Tensor, position_ids: Tensor, state: Tensor) -> dict[str, Tensor]:
        """Return the state: this head has no guesses, and no recipe runs it as a block."""
        return {"logits": state}
