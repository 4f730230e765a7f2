"""The card of a model that was trained for a recipe: how, and what it reaches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from specc.machine import Machine
from specc.training.model_folder import HEAD
from specc.training.training_card import TrainingCard


@dataclass(frozen=True, kw_only=True)
class ModelCard(TrainingCard):
    """The facts of a model that was trained further for a recipe.

    Attributes:
        recipe: the recipe.
        model: the model that it was before.
        has_head: whether a head was trained together with it.
        command: the command line.
        data: the files of prompts; empty for the prompts that ship with specc.
        parameters: numbers that were trained.
        minutes: of the updates.
        updates: of the weights.
        trained_tokens: tokens that the updates saw.
        losses: the mean loss of the last updates.
        depths_title: names what the rates tell of.
        rates_before: how often its guesses were right before the training, by depth, on greedy answers of the model
            that it was before to held-out prompts.
        rates: how often they are now.
        same: how often its likeliest token is that of these answers.
        machine: where it was trained.
        seed: of everything random.
        torch: the version of torch.
    """

    kind: ClassVar[str] = "trained_model"

    recipe: str
    model: str
    has_head: bool
    command: str
    data: tuple[str, ...]
    parameters: int
    minutes: float
    updates: int
    trained_tokens: int
    losses: tuple[float, ...]
    depths_title: str
    rates_before: tuple[float, ...]
    rates: tuple[float, ...]
    same: float
    machine: Machine
    seed: int
    torch: str

    def summary(self, output: str) -> dict[str, str]:
        """Return what a user reads after the training, by title."""
        return {
            "model": f"{output}, of which {self.parameters / 1e6:.1f} million numbers were trained",
            "training": f"{self.updates} updates in {self.minutes:.1f} minutes, {self.trained_tokens:,} tokens",
            self.depths_title: f"{_percents(self.rates)} at depth 1, 2, …; {_percents(self.rates_before)} before",
            "as before": f"{self.same:.1%} of the tokens on held-out prompts are those that the model wrote before",
        }

    def next_command(self, output: str) -> str:
        """Return the command that compiles the model."""
        head = f" --head {output}/{HEAD}" if self.has_head else ""
        return f"specc compile {output}{head} --recipe {self.recipe} -o model.specc"

    def readme(self, name: str) -> str:
        """Return the page of a model with this name."""
        about = f"{self.model}, trained further by `specc train` for the recipe {self.recipe}."
        return self.page(name, about, f"prompts: {self.prompts()}")


def _percents(rates: Sequence[float]) -> str:
    return ", ".join(f"{rate:.0%}" for rate in rates)
