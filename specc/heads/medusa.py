"""Heads that guess the tokens behind the next one, each from the last state (Cai et al. 2024, arXiv:2401.10774).

Head k is a residual block and a product. Its block starts at zero and its product as the model's own, as in the paper.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from specc.heads.head import Head, HeadConfig, linear, rms_norm, setting


class Medusa(Head):
    """K heads, each with a residual block, over the model's last state after its norm.

    Args:
        config: its settings are `heads` and `eps`.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        size, count = config.target.hidden_size, int(setting(config, "heads"))
        self.eps = setting(config, "eps")
        self.norm = nn.Parameter(torch.ones(size))
        blocks = [nn.Linear(size, size) for _ in range(count)]
        self.blocks = nn.ModuleList(blocks)
        self.heads = nn.ModuleList(linear(size, config.draft_vocab_size) for _ in range(count))
        for block in blocks:
            nn.init.zeros_(block.weight)
            nn.init.zeros_(block.bias)

    def fuse(self, taps: Tensor) -> Tensor:
        return rms_norm(taps, self.norm, self.eps)

    def forward(self, input_ids: Tensor, position_ids: Tensor, state: Tensor) -> dict[str, Tensor]:
        pairs = zip(self.blocks, self.heads, strict=True)
        return {"logits": torch.stack([head(state + functional.silu(block(state))) for block, head in pairs], -2)}

    def products(self) -> list[nn.Linear]:
        """Return the last product of each head."""
        return [product for product in self.heads if isinstance(product, nn.Linear)]
