"""Layers that draft several tokens in one call, from slots that stand on no token (P-EAGLE, Hui et al. 2026).

The paper is arXiv:2602.01469. Each slot behind the text has one learned embedding and one learned state. It sees the
text and the slots before it, so its position tells which token it guesses. A state of zeros marks such a slot.

It departs from the paper in two points: it stands on specc's EAGLE-3 (specc/heads/eagle3.py), with one layer by default
and not four, and its embeddings are the model's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from specc.heads.eagle3 import Eagle3
from specc.heads.head import HeadConfig
from specc.heads.layer_head import STREAM


class Peagle(Eagle3):
    """A head of decoder layers that needs no state of its own to draft several tokens.

    Args:
        config: its settings are those of `Eagle3`.
    """

    recurrent = False

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config, next_state=STREAM)
        size = config.target.hidden_size
        self.pseudo_token = nn.Parameter(0.02 * torch.randn(size))
        self.pseudo_state = nn.Parameter(0.02 * torch.randn(size))

    def forward(self, input_ids: Tensor, position_ids: Tensor, state: Tensor) -> dict[str, Tensor]:
        return {"logits": super().forward(input_ids, position_ids, state)["logits"]}

    def inputs(self, input_ids: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        embeddings, state = super().inputs(input_ids, state)
        is_pseudo = state.abs().amax(-1, keepdim=True) == 0
        return torch.where(is_pseudo, self.pseudo_token, embeddings), torch.where(is_pseudo, self.pseudo_state, state)
