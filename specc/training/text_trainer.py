"""The loop that trains modules of a model on whole texts: epochs, updates, checkpoints."""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from specc.runtime.errors import HeadError
from specc.training import processes
from specc.training.batches import epoch
from specc.training.checkpoint import Progress, failure, load_checkpoint, save_checkpoint
from specc.training.finite import are_finite
from specc.training.trainer import RECENT, TrainerOptions

S = TypeVar("S", bound=Sized)


class TextTrainer(ABC, Generic[S]):
    """A training of modules on texts, which goes on where an interrupted one stopped.

    Args:
        modules: what is trained. Parameters of it that need no gradient stay as they are.
        options: of the loop.
        checkpoint: the file of the state.
        settings: what a training that resumes must have in common with this one.
        rates: a factor of the learning rate for parameters whose names begin with the key.
    """

    def __init__(
        self,
        modules: nn.Module,
        options: TrainerOptions,
        checkpoint: Path,
        settings: dict[str, Any],
        rates: Mapping[str, float] | None = None,
    ) -> None:
        self.modules, self.options, self.checkpoint, self.settings = modules, options, checkpoint, settings
        by_factor: dict[float, list[nn.Parameter]] = {}
        for name, parameter in modules.named_parameters():
            factor = next((factor for start, factor in (rates or {}).items() if name.startswith(start)), 1.0)
            by_factor.setdefault(factor, []).append(parameter)
        groups = [{"params": parameters, "factor": factor} for factor, parameters in by_factor.items()]
        self.optimizer = torch.optim.AdamW(
            groups, lr=options.learning_rate, betas=(0.9, 0.95), weight_decay=options.decay
        )
        self.progress = Progress()
        self.saved_update: int | None = None  # of the state in the checkpoint

    @abstractmethod
    def texts(self, number: int) -> Sequence[S]:
        """Return the texts of an epoch.

        Args:
            number: of the epoch, from 0.
        """

    @abstractmethod
    def loss(self, group: Sequence[S]) -> Tensor:
        """Return the loss of a batch of texts, a number."""

    def mode(self, is_training: bool) -> None:
        """Set the model's mode. `is_training` is whether updates follow."""
        self.modules.train(is_training)

    def train(self, show: Callable[[float, float], None] = lambda part, loss: None) -> Progress:
        """Train until the time or the updates are over.

        Args:
            show: called after each update with the part of the training that is done, and the recent mean loss.

        Raises:
            HeadError: the loss or a weight is not a finite number, and the checkpoint is the last state with finite
                weights, if there was one; or the checkpoint is damaged.
        """
        processes.take_weights_of_first(self.modules)
        resumed = load_checkpoint(self.checkpoint, self.modules, self.optimizer, self.settings)
        if resumed is not None:
            self.progress, self.saved_update = resumed, resumed.updates
        progress, saved = self.progress, time.monotonic()
        window: list[float] = []
        while self.options.part(progress) < 1:
            begin = time.monotonic()
            groups = epoch(self.texts(progress.epoch), self.options.tokens, progress.epoch)
            progress.seconds += processes.agree(time.monotonic() - begin)
            batches = self.options.accumulate * processes.count()
            for first in range(0, len(groups), batches):
                if self.options.part(progress) >= 1:
                    break
                begin = time.monotonic()
                together = groups[first : first + batches]
                # Behind an epoch's last batch, the processes that have none take one of the last update again.
                ours = processes.share(together) or [together[processes.number() % len(together)]]
                window = [*window[-RECENT + 1 :], self._update(ours)]
                progress.seconds += processes.agree(time.monotonic() - begin)
                progress.tokens += sum(len(text) for group in together for text in group)
                if progress.updates % RECENT == 0:
                    self._keep_losses(window)
                show(self.options.part(progress), sum(window) / len(window))
            progress.epoch += 1
            if time.monotonic() - saved > self.options.every:
                self.save()
                saved = time.monotonic()
        self._keep_losses(window)
        processes.once(self.save)
        self.mode(False)
        return progress

    def save(self) -> None:
        """Write the checkpoint, in the first process."""
        if processes.is_first():
            save_checkpoint(self.checkpoint, self.modules, self.optimizer, self.progress, self.settings)
        self.saved_update = self.progress.updates

    def _keep_losses(self, window: Sequence[float]) -> None:
        """Keep the mean loss of the last updates. A training that made none has none."""
        if window:
            self.progress.losses[str(self.progress.updates)] = [round(sum(window) / len(window), 4)]

    def _update(self, groups: Sequence[Sequence[S]]) -> float:
        """Change the weights once by batches of texts, and return the mean loss."""
        self.mode(True)
        for one in self.optimizer.param_groups:
            one["lr"] = self.options.rate(self.progress) * one["factor"]
        self.optimizer.zero_grad()
        losses = []
        for group in groups:
            losses.append(self.loss(group) / len(groups))
            torch.autograd.backward(losses[-1])
        mean_loss = float(processes.mean(torch.stack(losses).detach().sum()))
        if not math.isfinite(mean_loss):
            raise self._failed(f"the loss of update {self.progress.updates + 1} is {mean_loss}")
        processes.average_gradients(self.modules.parameters())
        norm = torch.nn.utils.clip_grad_norm_(self.modules.parameters(), self.options.clip)
        if not torch.isfinite(norm):
            self.save()  # The weights have a finite loss.
            raise self._failed(f"the gradient of update {self.progress.updates + 1} has the norm {float(norm)}")
        self.optimizer.step()
        self.progress.updates += 1
        if not are_finite(self.modules.parameters()):
            raise self._failed(f"weights after update {self.progress.updates} are not finite numbers")
        return mean_loss

    def _failed(self, what: str) -> HeadError:
        """Say that training has failed. The checkpoint stays as it is."""
        return failure(what, self.progress, self.checkpoint, self.saved_update)
