"""The card of a draft model: how it was distilled, and what it reaches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from specc.machine import Machine
from specc.training.acceptance import CHAIN, Acceptance
from specc.training.gain import Gain, is_useless, train_more, verdict
from specc.training.training_card import TrainingCard


@dataclass(frozen=True, kw_only=True)
class ExitRate:
    """How good the drafts of one exit are, on held-out answers.

    Attributes:
        layers: the draft model's layers before the exit.
        alpha_before: how often speculative sampling accepted its token before the training.
        alpha: how often it does now.
        right: how often its likeliest token is that of a greedy answer.
    """

    layers: int
    alpha_before: float
    alpha: float
    right: float


@dataclass(frozen=True, kw_only=True)
class DraftCard(TrainingCard):
    """The facts of a distilled draft model.

    Attributes:
        recipe: how it was trained.
        model: the model that it drafts for.
        source: the draft model that it was before; empty if it was cut from the model.
        layers: the model's layers that it was cut from; empty for a draft model of its own, and for a recursive one.
        loops: how often it runs its block of layers; 1 unless it is recursive.
        rank: of what each layer of a recursive draft model adds to a shared matrix; 0 for others.
        command: the command line.
        data: the files of prompts; empty for the prompts that ship with specc.
        divergence: the loss.
        own_text: the share of the text that the draft wrote itself.
        parameters: numbers of the draft model. Those that layers share count once.
        minutes: of the updates.
        updates: of the weights.
        trained_tokens: tokens that the updates saw.
        losses: the mean loss of the last updates.
        alpha_before: how often speculative sampling accepted a drafted token before the training, on held-out answers.
        alpha: how often it does now.
        exits: what each exit reaches; empty if there is one alone. `alpha` and what follows are those of the exit by
            which the recipe drafts: after the first loop of a recursive draft model, after all layers of others.
        acceptance: on greedy answers to held-out prompts.
        gain: the predicted gain, or None if no costs are known.
        machine: where it was trained.
        seed: of everything random.
        torch: the version of torch.
    """

    kind: ClassVar[str] = "draft_model"

    recipe: str
    model: str
    source: str
    layers: tuple[int, ...]
    loops: int = 1
    rank: int = 0
    command: str
    data: tuple[str, ...]
    divergence: str
    own_text: float
    parameters: int
    minutes: float
    updates: int
    trained_tokens: int
    losses: tuple[float, ...]
    alpha_before: float
    alpha: float
    exits: tuple[ExitRate, ...] = ()
    acceptance: Acceptance
    gain: Gain | None
    machine: Machine
    seed: int
    torch: str

    def summary(self, output: str) -> dict[str, str]:
        """Return what a user reads after the training, by title."""
        depths = ", ".join(f"{rate:.0%}" for rate in self.acceptance.by_depth)
        return {
            "draft model": f"{output}, {self.parameters / 1e6:.1f} million numbers, {self._origin()}",
            "training": f"{self.updates} updates in {self.minutes:.1f} minutes, {self.trained_tokens:,} tokens",
            "accepted": f"{self.alpha:.1%} of sampled tokens, {self.alpha_before:.1%} before",
            **self._by_exit(),
            "right": f"{depths} at depth 1, 2, … if the tokens before were",
            f"chain of {CHAIN}": f"{self.acceptance.chain:.2f} tokens a step on held-out prompts",
            "gain": verdict(self.gain, "this draft model"),
        }

    def next_command(self, output: str) -> str:
        """Return the command that compiles the draft model."""
        recipe = "" if self.recipe == "draft-model" else f" --recipe {self.recipe}"
        return f"specc compile {self.model} --assistant-model {output}{recipe} -o model.specc"

    def next_step(self, output: str) -> str:
        """Return what a user does next."""
        useless = is_useless(self.gain, self.acceptance)
        return train_more("this draft model") if useless else self.next_command(output)

    def readme(self, name: str) -> str:
        """Return the page of a draft model with this name."""
        about = f"A model that drafts for {self.model}. It was distilled by `specc train`."
        loss = f"loss: {self.divergence}; the draft wrote {self.own_text:.0%} of the text itself"
        return self.page(name, about, loss, f"prompts: {self.prompts()}")

    def _origin(self) -> str:
        if self.source:
            return f"from {self.source}"
        if self.loops > 1:
            return f"the layers of the model in {self.loops} loops, with products of rank {self.rank}"
        return f"layers {', '.join(map(str, self.layers))} of the model"

    def _by_exit(self) -> dict[str, str]:
        """Return what each exit reaches, by title."""
        return {
            f"exit after {rate.layers}": f"{rate.alpha:.1%} of sampled tokens accepted, {rate.alpha_before:.1%} "
            f"before; {rate.right:.0%} right"
            for rate in self.exits
        }
