"""The base class of heads that guess several tokens from one state, in one call.

B  sequences      N  slots      K  guesses      d  hidden size      V'  tokens that the head knows
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from specc.heads.head import HeadConfig, LastStateHead, linear
from specc.heads.layer import Attend


class Stacked(LastStateHead):
    """A head with K guesses for a state, each of the token one place further than the guess before it.

    Attributes:
        count: K.
    """

    attends = False

    def __init__(self, config: HeadConfig, count: int) -> None:
        super().__init__(config)
        self.count = count

    @abstractmethod
    def features(self, input_ids: Tensor, position_ids: Tensor, state: Tensor, attention: list[Attend]) -> list[Tensor]:
        """Return what the last product reads for each guess, K of [B, N, d].

        Args:
            input_ids: see `forward`.
            position_ids: see `forward`.
            state: see `forward`.
            attention: that of each layer; empty for a head without layers.
        """

    @abstractmethod
    def product_of(self, depth: int) -> nn.Linear:
        """Return the product that makes the logits of a guess."""

    @abstractmethod
    def added(self) -> list[nn.Parameter]:
        """Return the weights that start at zero, so that a fresh guess is the model's own of the next token."""

    def products(self) -> list[nn.Linear]:
        """Return the products that make logits, each once."""
        return list(dict.fromkeys(self.product_of(depth) for depth in range(self.count)))

    def forward(self, input_ids: Tensor, position_ids: Tensor, state: Tensor) -> dict[str, Tensor]:
        features = self.features(input_ids, position_ids, state, self.attention())
        return {"logits": self.logits(features)}

    def attention(self) -> list[Attend]:
        """Return the attention of each layer in an engine."""
        return []

    def logits(self, features: list[Tensor]) -> Tensor:
        """Return the logits [B, N, K, V'] of what `features` returned."""
        return torch.stack([self.product_of(depth)(rows) for depth, rows in enumerate(features)], -2)


class SharedProduct(Stacked):
    """A head whose guesses go through one product, which starts as the model's own."""

    def __init__(self, config: HeadConfig, count: int) -> None:
        super().__init__(config, count)
        self.head = linear(config.target.hidden_size, config.draft_vocab_size)

    def product_of(self, depth: int) -> nn.Linear:
        return self.head

    def logits(self, features: list[Tensor]) -> Tensor:
        logits: Tensor = self.head(torch.stack(features, -2))  # One product reads its weights once.
        return logits
