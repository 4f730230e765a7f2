"""Heads whose guesses are slots of the model's own run: slots that stand on no token, behind each token.

A slot begins with a trained vector, in the place of an embedding or of what the first layers would say. The model's own
layers and its last product do the rest, so these heads have few weights. The systems differ in where the slots begin
and in what with:

- Parallel Prompt Decoding (Chen et al. 2024, arXiv:2405.18628): before all layers, with a trained embedding of its own
  for each guess.
- Lexical Unit Decoding (Sun et al. 2024, arXiv:2405.15208): before all layers, with one embedding for all guesses,
  which stands for the paper's padding token. The model may be trained with it (`specc.training.slot_training`).
- Hidden Transfer (Wu et al. 2024, arXiv:2404.12022): behind deep layers, each guess behind one of its own, with a
  product of the token's state there, a matrix for each guess.
- Speculative Streaming (Bhendawade et al. 2024, arXiv:2402.11131): behind a deep layer, with the token's state there,
  changed by a product of low rank, and a trained vector for each guess. Adapters of the layers behind it may be trained
  with it (`specc.training.slot_training`). The paper's product is not added to the state.

B  sequences, one in an engine      N  tokens      K  guesses      d  the model's hidden size
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from specc.heads.head import HeadConfig, linear, option, setting
from specc.heads.in_model import InModelHead
from specc.runtime.errors import HeadError


@dataclass(frozen=True)
class StartingPlace:
    """Where guesses begin that follow one another.

    Attributes:
        after: the layer behind which they begin; None for before all layers.
        first: the number of the first of them.
        count: how many they are.
    """

    after: int | None
    first: int
    count: int


class SlotHead(InModelHead):
    """A head that says what slots begin with.

    Its taps name the layer after which the slots begin, or one for each guess, which does not fall from guess to guess:
    so each slot sees those before it as they are meant to be. Without taps they begin before all layers.

    Args:
        config: its setting is `guesses` (K).

    Attributes:
        count: K.

    Raises:
        HeadError: there are more taps than one, and not one for each guess; or they fall.
    """

    def __init__(self, config: HeadConfig) -> None:
        super().__init__(config)
        self.count, taps = int(setting(config, "guesses")), list(config.taps)
        if len(taps) not in (0, 1, self.count) or taps != sorted(taps):
            raise HeadError(
                f"the head's config.json has the taps {taps} for {self.count} guesses; give one for each, none before "
                "the one of the guess before it"
            )

    @property
    def after(self) -> int | None:
        """The layer after which the first slot begins; None for before all layers."""
        return self.taps[0] if self.taps else None

    @property
    def starting_places(self) -> tuple[StartingPlace, ...]:
        """Where slots begin, first layer first."""
        if len(self.taps) < 2:
            return (StartingPlace(self.after, 0, self.count),)
        layers = sorted(set(self.taps))
        return tuple(StartingPlace(layer, self.taps.index(layer), self.taps.count(layer)) for layer in layers)

    def step_slots(self, drafted: int) -> int:
        """See `Head`: each token of the chain has as many guesses behind it."""
        return (1 + drafted) * (1 + drafted)

    def starts(self, x: Tensor) -> Tensor:
        """Return what the slots behind tokens begin with, [B, N, K, d], if all begin behind one layer.

        Args:
            x: [B, N, d]: the hidden states of the tokens, where the slots begin.
        """
        return self.starts_of(x, 0, self.count)

    @abstractmethod
    def starts_of(self, x: Tensor, first: int, count: int) -> Tensor:
        """Return what some of the slots behind tokens begin with, [B, N, count, d].

        Args:
            x: [B, N, d]: the hidden states of the tokens, where these slots begin.
            first: the number of the first of these guesses.
            count: how many they are.
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

    def starts_of(self, x: Tensor, first: int, count: int) -> Tensor:
        table = self.table if len(self.table) in (1, count) else self.table[first : first + count]
        return table.expand(*x.shape[:2], count, self.table.shape[1])

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
        self.transfer = nn.ModuleList([linear(size, size) for _ in range(self.count)])

    def starts_of(self, x: Tensor, first: int, count: int) -> Tensor:
        return torch.stack([self.transfer[guess](x) for guess in range(first, first + count)], 2)

    @torch.no_grad()
    def begin(self, states: Tensor) -> None:
        """Start as the token's own state."""
        for product in self.transfer:
            product.get_parameter("weight").copy_(torch.eye(states.shape[-1]))


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

    def starts_of(self, x: Tensor, first: int, count: int) -> Tensor:
        table = self.table if count == self.count else self.table[first : first + count]
        out: Tensor = (x + self.up(self.down(x)))[:, :, None] + table
        return out

    @torch.no_grad()
    def begin(self, states: Tensor) -> None:
        """Start as the token's own state, each guess a little elsewhere."""
        self.up.weight.zero_()
        self.table.copy_(0.1 * torch.randn(self.table.shape) * states.std(0))
