"""The loop that trains a head."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from specc.heads import Head
from specc.runtime.errors import HeadError
from specc.training import processes
from specc.training.acceptance import CHAIN, shared_ranks, summary
from specc.training.batches import Batch, collate, epoch, fill_up
from specc.training.checkpoint import Progress, failure, load_checkpoint, save_checkpoint
from specc.training.course import DEEPER, Course
from specc.training.device import BATCH, current_device, generator
from specc.training.distillation import Distillation
from specc.training.finite import are_finite
from specc.training.shards import Recording

LOW = 0.02  # of the learning rate, at the end
COMPARED = 64  # rows of a depth whose first choice is compared with the model's, for the display
RECENT = 25  # updates of which the mean loss is kept


@dataclass(frozen=True, kw_only=True)
class TrainerOptions:
    """The options of the training loop.

    Attributes:
        minutes: the time of the updates, those before an interrupt included. The evaluations come on top.
        updates: the number of updates, in place of `minutes`. Then two runs give equal weights.
        learning_rate: of the layer. Others have a share of it, see `Course.rates`.
        tokens: of a batch.
        accumulate: batches of one update, in each process.
        warm_up: updates until the learning rate is reached.
        share: of the rows that are trained at each depth but the first.
        clip: the largest norm of the gradient.
        decay: the weight decay.
        every: seconds between two checkpoints.
        evaluations: how often the acceptance is measured on the way.
        patience: evaluations of the second half without a better one before the training stops.
        held_out: tokens of held-out text that an evaluation on the way reads from each source.
        kind: the type of numbers in which products run.
        seed: of the order of the text, and of the rows.
    """

    minutes: float = 60.0
    updates: int | None = None
    learning_rate: float = 8e-4
    tokens: int = BATCH
    accumulate: int = 1
    warm_up: int = 40
    share: float = 0.5
    clip: float = 1.0
    decay: float = 0.01
    every: float = 60.0
    evaluations: int = 10
    patience: int = 4
    held_out: int = 4000
    kind: torch.dtype = torch.float32
    seed: int = 0

    def part(self, progress: Progress) -> float:
        """Return which part of the training is done, from 0 to 1."""
        if self.updates is not None:
            return min(1.0, progress.updates / max(1, self.updates))
        return min(1.0, progress.seconds / max(1e-9, 60 * self.minutes))

    def rate(self, progress: Progress) -> float:
        """Return the learning rate: it rises over `warm_up` updates and falls as a cosine."""
        rising = min(1.0, (progress.updates + 1) / max(1, self.warm_up))
        return self.learning_rate * rising * (LOW + (1 - LOW) * 0.5 * (1 + math.cos(math.pi * self.part(progress))))


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What the trainer shows while it runs.

    Attributes:
        part: of the training that is done, from 0 to 1.
        loss: the recent mean loss at depth 0.
        agreement: how often the head's first choice was the model's, at each depth.
        speed: tokens a second.
        chain: tokens a step on held-out text, at the last evaluation; 0 before the first.
    """

    part: float
    loss: float
    agreement: tuple[float, ...]
    speed: float
    chain: float


class Trainer:
    """A training of one head.

    Args:
        head: the head, with its embedding table.
        course: how its architecture is trained.
        loss: compares it with its model.
        options: of the loop.
        checkpoint: the file of the state.
        settings: what a training that resumes must have in common with this one.
    """

    def __init__(
        self,
        head: Head,
        course: Course,
        loss: Distillation,
        options: TrainerOptions,
        checkpoint: Path,
        settings: dict[str, Any],
    ) -> None:
        self.head, self.course, self.loss, self.options = head, course, loss, options
        self.checkpoint, self.settings = checkpoint, settings
        self.best_file = checkpoint.with_name("best-" + checkpoint.name)
        groups = [{"params": [p], "factor": _factor(name, course)} for name, p in head.named_parameters()]
        self.optimizer = torch.optim.AdamW(
            groups, lr=options.learning_rate, betas=(0.9, 0.95), weight_decay=options.decay
        )
        self.progress = Progress()
        self.saved_update: int | None = None  # of the state in the checkpoint

    def run(
        self,
        recordings: Sequence[Recording],
        held_out: Mapping[str, Sequence[Recording]],
        show: Callable[[Sight], None] = lambda sight: None,
    ) -> Progress:
        """Train until the time is over or the acceptance no longer grows. Leave the best weights in the head.

        Args:
            recordings: text to train on.
            held_out: text to measure on, by its source. All sources together decide which weights are best.
            show: called after each update.

        Raises:
            HeadError: the loss or a weight is not a finite number, and the checkpoint is the last state with finite
                weights, if there was one; or a file of the training is damaged.
        """
        processes.take_weights_of_first(self.head)
        self._resume()
        progress = self.progress
        watched = {source: _cut(texts, self.options.held_out) for source, texts in held_out.items()}
        if not progress.best:
            self._evaluate(watched)
        window: list[list[float]] = []
        saved = time.monotonic()
        groups = self._groups(recordings)
        while self.options.part(progress) < 1 and not self._stalled():
            start = time.monotonic()
            numbered = list(enumerate(itertools.islice(groups, self.options.accumulate * processes.count())))
            parts = {
                index: replace(collate(group), part=self.options.part(progress))
                for index, group in processes.share(numbered)
            }
            window = [*window[-RECENT + 1 :], self._update(parts)]
            count = sum(len(text) for _, group in numbered for text in group)
            seconds = processes.agree(time.monotonic() - start)
            progress.seconds += seconds
            progress.tokens += count
            show(self._sight(window, count / seconds))
            if progress.updates % RECENT == 0:
                self._keep_losses(window)
            if self._evaluation_is_due():
                self._evaluate(watched)
            if time.monotonic() - saved > self.options.every:
                self.save()
                saved = time.monotonic()
        self._keep_losses(window)
        self._evaluate(watched)
        processes.once(self.save)
        self._load_best()
        self.head.eval()
        return progress

    def save(self) -> None:
        """Write the checkpoint, in the first process."""
        if processes.is_first():
            save_checkpoint(self.checkpoint, self.head, self.optimizer, self.progress, self.settings)
        self.saved_update = self.progress.updates

    def _groups(self, recordings: Sequence[Recording]) -> Iterator[list[Recording]]:
        """Yield the texts of each batch without end, from the next one on."""
        progress = self.progress
        while True:
            groups = epoch(recordings, self.options.tokens, self._seed(progress.epoch))
            while progress.batch < len(groups):
                progress.batch += 1
                yield groups[progress.batch - 1]
            progress.epoch, progress.batch = progress.epoch + 1, 0

    def _resume(self) -> None:
        """Go on from the checkpoint. Without a file of the best weights, its own are measured anew."""
        progress = load_checkpoint(self.checkpoint, self.head, self.optimizer, self.settings)
        if progress is None:
            return
        self.progress, self.saved_update = progress, progress.updates
        if self._load_best() is None:
            progress.best, progress.best_update = 0.0, 0
            progress.acceptances.pop(str(progress.updates), None)
        load_checkpoint(self.checkpoint, self.head, self.optimizer, self.settings)

    def _seed(self, number: int) -> int:
        return self.options.seed * 1009 + number

    def _update(self, parts: Mapping[int, Batch]) -> list[float]:
        """Change the weights once. Return the loss and the agreement of each depth, in turns.

        Args:
            parts: the batches of this process, by their numbers among those of all.
        """
        self.head.train()
        for group in self.optimizer.param_groups:
            group["lr"] = self.options.rate(self.progress) * group["factor"]
        self.optimizer.zero_grad()
        figures = torch.zeros(2 * self.course.steps)
        for number, batch in parts.items():
            losses, agreements, besides = self._losses(batch, number)
            weighted = [DEEPER**depth * loss for depth, loss in enumerate(losses)]
            total = torch.stack(weighted + besides).sum() / len(parts)
            mean_loss = processes.mean(total.detach())
            if not torch.isfinite(mean_loss):
                raise self._failed(f"the loss of update {self.progress.updates + 1} is {float(mean_loss)}")
            torch.autograd.backward(total)
            figures[0::2] += torch.stack([loss.detach() for loss in losses]) / len(parts)
            figures[1::2] += torch.tensor(agreements) / len(parts)
        processes.average_gradients(self.head.parameters())
        norm = torch.nn.utils.clip_grad_norm_(self.head.parameters(), self.options.clip)
        if not torch.isfinite(norm):
            self.save()  # The weights have a finite loss.
            raise self._failed(f"the gradient of update {self.progress.updates + 1} has the norm {float(norm)}")
        self.optimizer.step()
        self.progress.updates += 1
        if not are_finite(self.head.parameters()):
            raise self._failed(f"weights after update {self.progress.updates} are not finite numbers")
        return processes.mean(figures).tolist()

    def _failed(self, what: str) -> HeadError:
        """Say that training has failed. The checkpoint stays as it is."""
        return failure(what, self.progress, self.checkpoint, self.saved_update)

    def _losses(self, batch: Batch, number: int) -> tuple[list[Tensor], list[float], list[Tensor]]:
        """Return the loss and the agreement at each depth, and the course's other losses."""
        random = generator((self._seed(0) + self.progress.updates) * 64 + number)
        losses, agreements = [], []
        with torch.autocast(current_device().type, torch.bfloat16, enabled=self.options.kind == torch.bfloat16):
            unrolled = self.course.unroll(self.head, batch, self.course.steps)
            besides = [] if self.course.besides is None else [self.course.besides(self.head, batch, unrolled)]
            for depth, features in enumerate(unrolled):
                rows = batch.rows(depth)
                if depth:
                    sample = rows & (torch.rand(rows.shape, generator=random) < self.options.share)
                    rows = sample if sample.any() else rows  # The mean over no rows is not a number.
                count = int(rows.sum())
                model_logits = self.loss.logits(fill_up(batch.final[:, 1:][rows].to(self.options.kind)))[:count]
                logits = self.course.product(self.head, depth, fill_up(features[rows]))[:count]
                losses.append(self.loss.loss(logits, model_logits))
                same = _first_choices(logits) == _first_choices(model_logits)
                agreements.append(float(same.float().mean()))
        return losses, agreements, besides

    def _sight(self, window: Sequence[Sequence[float]], speed: float) -> Sight:
        means = [sum(column) / len(window) for column in zip(*window, strict=True)]
        last = max(self.progress.acceptances, key=int, default=None)
        return Sight(
            part=self.options.part(self.progress),
            loss=means[0],
            agreement=tuple(means[1::2]),
            speed=speed,
            chain=self.progress.acceptances[last] if last else 0.0,
        )

    def _keep_losses(self, window: Sequence[Sequence[float]]) -> None:
        """Keep the mean losses of the last updates. A training that made none has none."""
        if window:
            means = [sum(column) / len(window) for column in zip(*window, strict=True)]
            self.progress.losses[str(self.progress.updates)] = [round(mean, 4) for mean in means[0::2]]

    def _evaluation_is_due(self) -> bool:
        """Tell whether the part that is done has passed the next multiple of 1 / evaluations."""
        return self.options.part(self.progress) * self.options.evaluations >= len(self.progress.acceptances)

    def _stalled(self) -> bool:
        """Tell whether evaluations bring nothing.

        Those of the first half do not count. The learning rate is high then, and a head that was trained before first
        gets worse by it.
        """
        updates = sorted(map(int, self.progress.acceptances))
        late = updates[self.options.evaluations // 2 :]
        return sum(update > self.progress.best_update for update in late) >= self.options.patience

    def _evaluate(self, held_out: Mapping[str, Sequence[Recording]]) -> None:
        """Measure the acceptance on held-out text, and keep the weights if they are the best so far."""
        update = self.progress.updates
        if str(update) in self.progress.acceptances:
            return
        depths = CHAIN if self.course.recurrent else self.course.steps
        ranked = {source: shared_ranks(self.head, self.course, texts, depths) for source, texts in held_out.items()}
        for source, texts in ranked.items():
            self.progress.by_source.setdefault(source, {})[str(update)] = round(summary(texts).chain, 4)
        chain = round(summary([text for texts in ranked.values() for text in texts]).chain, 4)
        self.progress.acceptances[str(update)] = chain
        if chain > self.progress.best:
            self.progress.best, self.progress.best_update = chain, update
            if processes.is_first():
                save_checkpoint(self.best_file, self.head, self.optimizer, self.progress, self.settings)

    def _load_best(self) -> Progress | None:
        """Put the best weights into the head. Return their progress, or None if there is no file of this training."""
        remedy = "delete it, and the weights of the checkpoint are measured anew"
        return load_checkpoint(self.best_file, self.head, self.optimizer, self.settings, remedy)


def _factor(name: str, course: Course) -> float:
    """Return the factor of a parameter's learning rate."""
    return next((factor for prefix, factor in course.rates.items() if name.split(".")[0] == prefix), 1.0)


def _first_choices(logits: Tensor) -> Tensor:
    """Return the likeliest tokens of the first rows. `max` is faster than `argmax` in torch."""
    return logits[:COMPARED].max(-1).indices


def _cut(recordings: Sequence[Recording], tokens: int) -> list[Recording]:
    """Return recordings from the start that have so many tokens together, one at least."""
    result: list[Recording] = []
    for recording in recordings:
        if result and sum(map(len, result)) + len(recording) > tokens:
            break
        result.append(recording)
    return result
