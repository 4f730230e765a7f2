"""A program that torchrun starts several times: each process trains and writes what it has into a folder.

torchrun --standalone --nproc-per-node 2 several_processes.py FOLDER
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from small_head import head, recordings, teacher
from torch import Tensor, nn

from specc.runtime.errors import HeadError
from specc.training import processes
from specc.training.distillation import Distillation
from specc.training.eagle3 import COURSE
from specc.training.text_trainer import TextTrainer
from specc.training.trainer import Sight, Trainer, TrainerOptions

HELD_OUT = {"toy": recordings(2, seed=9)}


def head_trainer(folder: Path, accumulate: int) -> Trainer:
    """Return a training of a small head, with so many batches an update in each process."""
    folder.mkdir(exist_ok=True)
    module = head("eagle3")
    options = TrainerOptions(
        updates=6, tokens=200, warm_up=2, every=0.0, evaluations=2, learning_rate=3e-3, accumulate=accumulate
    )
    loss = Distillation(teacher(), module.vocabulary)
    return Trainer(module, COURSE, loss, options, folder / "checkpoint.safetensors", {"toy": 1})


class LettersTrainer(TextTrainer[str]):
    """A training of a line by letters. Its epochs have three batches, which two processes cannot share evenly."""

    gives = 1.0

    def texts(self, number: int) -> Sequence[str]:
        """Return all texts."""
        return ["a" * 10, "b" * 20, "c" * 40]

    def loss(self, group: Sequence[str]) -> Tensor:
        """Return a loss that falls with the line."""
        lengths = torch.tensor([[0.1 * len(text)] for text in group])
        loss: Tensor = self.modules(lengths).square().mean() * self.gives
        return loss


def letters_trainer(file: Path, accumulate: int = 1) -> LettersTrainer:
    """Return a training of a line, with so many batches an update in each process."""
    return LettersTrainer(nn.Linear(1, 1), TrainerOptions(updates=5, tokens=40, accumulate=accumulate), file, {})


def run(folder: Path) -> None:
    """Train, and write the weights and the facts of this process."""
    number = processes.number()
    facts: dict[str, object] = {
        "gathered": processes.gather([10 * item for item in processes.share(range(5))]),
        "agreed": processes.agree(f"of process {number}"),
        "gradients": averaged_gradients(number),
        "errors": [error_of(number, "head", folder), error_of(number, "text", folder)],
    }
    training = head_trainer(folder / "head", accumulate=1)
    with torch.no_grad():
        next(training.head.parameters()).add_(number)  # Only the first process has the weights to begin with.
    weights: dict[str, Tensor] = {}

    def keep_weights(sight: Sight) -> None:
        weights.update({name: tensor.clone() for name, tensor in training.head.state_dict().items()})

    facts["acceptances"] = training.run(recordings(12), HELD_OUT, keep_weights).acceptances
    torch.manual_seed(number)
    letters = letters_trainer(folder / "letters.safetensors")
    facts["tokens"] = letters.train().tokens
    facts["tokens of two batches each"] = letters_trainer(folder / "two.safetensors", accumulate=2).train().tokens
    save_file(weights, folder / f"head-{number}.safetensors")
    save_file(letters.modules.state_dict(), folder / f"letters-{number}.safetensors")
    (folder / f"facts-{number}.json").write_text(json.dumps(facts))


def averaged_gradients(number: int) -> list[float | None]:
    """Return gradients after their mean was taken: of one that both have, one that the first has, and of none."""
    parameters = [nn.Parameter(torch.zeros(1)) for _ in range(3)]
    parameters[0].grad = torch.tensor([1.0 + number])
    if number == 0:
        parameters[1].grad = torch.tensor([8.0])
    processes.average_gradients(parameters)
    return [None if one.grad is None else float(one.grad) for one in parameters]


def error_of(number: int, kind: str, folder: Path) -> str:
    """Return the error of a training whose loss is not a number in the second process alone."""
    spoiled = torch.nan if number == 1 else 1.0
    try:
        if kind == "head":
            broken = head_trainer(folder / "broken", accumulate=1)
            right = broken.loss.loss
            broken.loss.loss = lambda logits, model_logits: right(logits, model_logits) * spoiled  # type: ignore[method-assign]
            broken.run(recordings(12), HELD_OUT)
        else:
            line = letters_trainer(folder / "none.safetensors")
            line.gives = spoiled
            line.train()
    except HeadError as e:
        return str(e)
    return ""


def main() -> None:
    """Join the other processes and run."""
    with processes.joined(torch.device("cpu")):
        processes.use_threads()
        run(Path(sys.argv[1]))


if __name__ == "__main__":
    main()
