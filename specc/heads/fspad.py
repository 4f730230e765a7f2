"""EAGLE's layer over states that the token samples (FSPAD, Gui et al. 2024, arXiv:2408.15562).

The token's embedding gates the last state in a space twice as wide. So the state before many possible tokens becomes
that of the chosen one. What the next slot reads is a product of what makes the logits, so that the two can differ.

The paper's abstract alone was at hand. So the authors' own gate, and their split of the output, are not known here:
both are our reading of it.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

from specc.heads.eagle import Eagle
from specc.heads.head import HeadConfig, linear
from specc.heads.layer_head import PRODUCT


class Fspad(Eagle):
    """A recurrent head whose state is sampled by the token before both are joined.

    Args:
        config: its settings are those of `Eagle`.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config, next_state=PRODUCT)
        size = config.target.hidden_size
        self.gate, self.up, self.down = linear(size, 2 * size), linear(size, 2 * size), linear(2 * size, size)

    def join(self, embeddings: Tensor, state: Tensor) -> Tensor:
        sample = self.down(functional.silu(self.gate(embeddings)) * self.up(state))
        return super().join(embeddings, state + sample)
