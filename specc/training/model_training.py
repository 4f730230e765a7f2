"""The base of trainings that change the model itself: what is trained, by which loss, and what is measured."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from torch import Tensor, nn

from specc.heads import Head
from specc.training.batches import padded
from specc.training.distil import Text


class ModelTraining(ABC):
    """A training of a model itself, for a recipe.

    Attributes:
        depths_title: names what `rates` tells of.
        rates_by_name: factors of the learning rate, for parameters of `modules` whose names begin with the key.
        modules: what is trained.
        head: the head that is trained together with the model; None if the recipe has none.
    """

    depths_title: ClassVar[str]
    rates_by_name: ClassVar[Mapping[str, float]] = {}
    modules: nn.Module
    head: Head | None = None

    def mark(self, texts: Sequence[Text]) -> list[Text]:
        """Note beside texts what the untrained model says of them, if the loss asks for it."""
        return list(texts)

    @abstractmethod
    def loss(self, group: Sequence[Text], seed: int) -> Tensor:
        """Return the loss of a batch of texts.

        Args:
            group: texts that `mark` returned.
            seed: of what the loss draws.
        """

    @abstractmethod
    def rates(self, texts: Sequence[Text]) -> tuple[float, ...]:
        """Return how often the model's guesses are right in texts, by depth."""

    def finish(self) -> None:
        """Bring the model into the form in which it is saved. Most models have it already."""
        return


def side_by_side(group: Sequence[Text]) -> tuple[Tensor, Tensor]:
    """Return the tokens of texts, [B, N], padded with 0; and which of the first N - 1 rows foretell answers' tokens."""
    tokens = padded([text.tokens for text in group])
    rows = tokens.new_zeros(len(group), tokens.shape[1] - 1).bool()
    for lane, text in enumerate(group):
        rows[lane, max(0, text.prompt - 1) : len(text) - 1] = True
    return tokens, rows
