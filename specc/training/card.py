"""The card of a head: how it was trained, and what it reaches. card.json for programs, README.md for people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from specc.machine import Machine
from specc.training.acceptance import CHAIN, TREE, Acceptance
from specc.training.gain import LEAST, Gain, is_useless, train_more, verdict
from specc.training.training_card import TrainingCard


@dataclass(frozen=True, kw_only=True)
class Card(TrainingCard):
    """The facts of a trained head.

    Attributes:
        recipe: how it was trained.
        architecture: of the head.
        model: the model that it was trained for.
        command: the command line.
        data: the files of prompts; empty for the prompts that ship with specc.
        recorded_tokens: tokens of recorded text to train on.
        held_out_tokens: tokens of recorded text to measure on.
        coverage: the share of the text that the head's vocabulary has.
        parameters: numbers of the head.
        bits: in which matrices are stored.
        minutes: of the updates, without recording and evaluations.
        updates: of the weights.
        trained_tokens: tokens that the updates saw.
        epochs: how often they saw the text.
        losses: the mean loss at each depth in the last updates.
        progress: tokens a step of the chain on held-out text, by update.
        progress_by_source: those on the held-out text of each source, by source and update.
        acceptance: on all held-out answers, with the weights as they are stored.
        by_source: on the held-out answers of each source of prompts, `given` and `self`.
        gain: the predicted gain, or None if no costs are known.
        machine: where it was trained.
        seed: of everything random.
        torch: the version of torch.
        origin: the name of the head with which the training began; empty for a closed form.
    """

    kind: ClassVar[str] = "head"

    recipe: str
    architecture: str
    model: str
    command: str
    data: tuple[str, ...]
    recorded_tokens: int
    held_out_tokens: int
    coverage: float
    parameters: int
    bits: int
    minutes: float
    updates: int
    trained_tokens: int
    epochs: float
    losses: tuple[float, ...]
    progress: dict[str, float]
    progress_by_source: dict[str, dict[str, float]]
    acceptance: Acceptance
    by_source: dict[str, Acceptance]
    gain: Gain | None
    machine: Machine
    seed: int
    torch: str
    origin: str = ""

    def summary(self, output: str) -> dict[str, str]:
        """Return what a user reads after the training, by title."""
        depths = ", ".join(f"{rate:.0%}" for rate in self.acceptance.by_depth)
        return {
            "head": f"{output}, {self.parameters / 1e6:.1f} million numbers in {self.bits} bits",
            "text": f"{self.recorded_tokens:,} tokens recorded, {self.trained_tokens:,} trained on",
            "training": f"{self.updates} updates in {self.minutes:.1f} minutes{self._no_better()}",
            "right": f"{depths} at depth 1, 2, …, where the drafts before were right",
            f"chain of {CHAIN}": f"{self.acceptance.chain:.2f} tokens a step on held-out prompts",
            f"tree of {TREE}": f"{self.acceptance.tree:.2f} tokens a step",
            "gain": verdict(self.gain, "this head"),
        }

    def next_command(self, output: str) -> str:
        """Return the command that compiles the head."""
        return f"specc compile {self.model} --head {output} -o model.specc"

    def next_step(self, output: str) -> str:
        """Return what a user does next."""
        useless = is_useless(self.gain, self.acceptance)
        return train_more("this head") if useless else self.next_command(output)

    def readme(self, name: str) -> str:
        """Return the page of a head with this name."""
        prompts = self.prompts()
        if "self" in self.by_source:
            prompts += ", and those that the model wrote"
        percent = [f"{rate:.1%}" for rate in self.acceptance.by_depth]
        depths = "\n".join(f"| {depth + 1} | {rate} |" for depth, rate in enumerate(percent))
        minutes = f"{self.minutes:.{1 if self.minutes < 10 else 0}f}"
        ranks = ", ".join(f"{rate:.1%}" for rate in self.acceptance.by_rank)
        return f"""# {name}

A head that drafts for {self.model}. It was trained by `specc train`, and it is of no use to another model.

- Architecture: {self.architecture}, {self.parameters / 1e6:.1f} million numbers, stored in {self.bits} bits
- Text: {self.recorded_tokens:,} tokens, prompts and answers of the model. Prompts: {prompts}
- Training: {self.updates} updates, {self.trained_tokens:,} tokens ({self.epochs:.1f} epochs), seed {self.seed}
- Time: {minutes} minutes for the updates, without the recording, on {self._where()}
- Begun with: {f"the head {self.origin}" if self.origin else "a closed form"}{self._no_better()}
- Last losses at depths 1, 2, …: {", ".join(f"{loss:.2f}" for loss in self.losses) or "none"} nats
- Vocabulary: {self.coverage:.1%} of the text

```sh
{self.command}
```

Greedy answers to held-out prompts, {self.acceptance.tokens:,} tokens. The first choice is the model's token, where all
drafts before it were right:

| depth | right |
| --- | --- |
{depths}

- At depth 1 the model's token has rank 1, 2, …: {ranks}
- A chain of {CHAIN} drafted tokens gives {self.acceptance.chain:.2f} tokens a step, the model's own included.
- The best static tree of {TREE} slots gives {self.acceptance.tree:.2f}.
{self._sources()}- {self.acceptance.unknown:.1%} of the tokens are outside the head's vocabulary.
- {self._gain()}
"""

    def _no_better(self) -> str:
        """Say that the training brought nothing, if no evaluation was better than the one before the first update."""
        later = [chain for update, chain in self.progress.items() if int(update) > 0]
        if not later or max(later) > self.progress.get("0", 0.0):
            return ""
        return "; no update was better than the beginning, which is what was written: train longer, or on more text"

    def _sources(self) -> str:
        """Return a line for each source of prompts, if there are several."""
        if len(self.by_source) < 2:
            return ""
        return "".join(
            f"- Prompts `{source}`, {value.tokens:,} tokens: chain {value.chain:.2f}, tree {value.tree:.2f}.\n"
            for source, value in self.by_source.items()
        )

    def _where(self) -> str:
        if self.machine.gpu:
            return self.machine.gpu
        threads = self.machine.threads
        return f"{threads} {'thread' if threads == 1 else 'threads'} of {self.machine.cpu}"

    def _gain(self) -> str:
        if self.gain is None:
            return "Predicted gain: unknown, since no bundle's costs were named (`--costs`)."
        verdict = "" if self.gain.useful else f" That is less than {LEAST}: the head is not useful on this machine."
        return f"Predicted gain: {self.gain.speedup:.2f} x plain decoding with {self.gain.tokens} a step.{verdict}"
