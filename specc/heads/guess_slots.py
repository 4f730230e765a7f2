"""Heads whose guesses are slots of the model's own run: slots that stand on no token, behind each token.

A slot begins with a trained vector, in the place of an embedding or of what the first layers would say. The model's own
layers and its last product do the rest, so these heads have few weights. The systems differ in where the slots begin
and in what with:

- Parallel Prompt Decoding (Chen et al. 2024, arXiv:2405.18628): before all layers, with a trained embedding of its own
  for each guess.
- Lexical Unit Decoding (Sun et al. 2024, arXiv:2405.15208): before all layers, with one embedding for all guesses,
  which stands for the paper's padding token. The model may be trained with it (`specc.training.slot_training`).
- Hidden Transfer (Wu et al. 2024, arXiv:2404.12022): behind a deep layer, with a product of the token's state there, a
  matrix for each guess. The paper has guess k begin at a layer of its own; here all begin behind one layer.
- Speculative Streaming (Bhendawade et al. 2024, arXiv:2402.11131): behind a deep layer, with the token's state there,
  changed by a product of low rank, and a trained vector for each guess. Adapters of the layers behind it may be trained
  with it (`specc.training.slot_training`). The paper's product is not added to the state.

B  sequences, one in an engine      N  tokens      K  guesses      d  the model's hidden size
"""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor, nn

from specc.heads.head import HeadConfig, linear, option, setting
from specc.heads.in_model import InModelHead


class SlotHead(InModelHead):
    """A head that says what slots begin with.

    Its taps name the layer after which the slots begin. Without taps they begin before all layers.

    Args:
        config: its setting is `guesses` (K).

    Attributes:
        count: K.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        self.count = int(setting(config, "guesses"))

    @property
    def after(self) -> int | None:
        """The layer after which the slots begin; None for before all layers."""
        return self.taps[0] if self.taps else None

    def step_slots(self, drafted: int) -> int:
        """See `Head`: each token of the chain has as many guesses behind it."""
        return (1 + drafted) * (1 + drafted)

    @abstractmethod
    def starts(self, x: Tensor) -> Tensor:
        """Return what the slots behind tokens begin with, [B, N, K, d].

        Args:
            x: [B, N, d]: the hidden states of the tokens, where the slots begin.
        """

    @abstractmethod
    def begin(self, states: Tensor) -> None:
        """Set the weights before training.

        Args:
            states: [M, d]: hidden states of tokens, where the slots begin.
        """


class PromptTokens(SlotHead):
    """A head with an embedding for each guess, which is the same behind all tokens.

    Args:
        config: its settings are those of `SlotHead`. An optional one is `shared` (1: all guesses have one embedding).
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        rows = 1 if option(config, "shared", 0) else self.count
        self.table = nn.Parameter(0.02 * torch.randn(rows, config.target.hidden_size))

    def starts(self, x: Tensor) -> Tensor:
        return self.table.expand(*x.shape[:2], self.count, self.table.shape[1])

    @torch.no_grad()
    def begin(self, states: Tensor) -> None:
        """Start near the mean of embeddings, each guess elsewhere."""
        noise = torch.randn(self.table.shape) * states.std(0)
        self.table.copy_(states.mean(0) + 0.1 * noise)


class HiddenTransfer(SlotHead):
    """A head that makes the state of each guess from the state of its token, by a matrix for each guess."""

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        size = config.target.hidden_size
        self.transfer = linear(size, self.count * size)

    def starts(self, x: Tensor) -> Tensor:
        return torch.unflatten(self.transfer(x), -1, (self.count, -1))

    @torch.no_grad()
    def begin(self, states: Tensor) -> None:
        """Start as the token's own state."""
        self.transfer.weight.copy_(torch.eye(states.shape[-1]).repeat(self.count, 1))


class SpeculativeStreams(SlotHead):
    """A head whose guesses all begin with one change of the state of their token, each with a vector of its own.

    Args:
        config: its settings are those of `SlotHead`, and `rank`, that of the product.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        size, rank = config.target.hidden_size, int(setting(config, "rank"))
        self.down, self.up = linear(size, rank), linear(rank, size)
        self.table = nn.Parameter(0.02 * torch.randn(self.count, size))

    def starts(self, x: Tensor) -> Tensor:
        out: Tensor = (x + self.up(self.down(x)))[:, :, None] + self.table
        return out

    @torch.no_grad()
    def begin(self, states: Tensor) -> None:
        """Start as the token's own state, each guess a little elsewhere."""
        self.up.weight.zero_()
        self.table.copy_(0.1 * torch.randn(self.table.shape) * states.std(0))
