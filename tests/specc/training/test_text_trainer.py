"""The loop on whole texts: its checkpoint is a good state, and a training of few updates has losses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from specc.runtime.errors import HeadError
from specc.training.text_trainer import TextTrainer
from specc.training.trainer import TrainerOptions

pytestmark = pytest.mark.torch


class LineTrainer(TextTrainer[str]):
    """A training of a line by texts that count their letters. Weights become NaN at the update `fails_at`."""

    fails_at = 0
    gives = 1.0

    def texts(self, number: int) -> Sequence[str]:
        return ["a", "bb"]

    def loss(self, group: Sequence[str]) -> Tensor:
        lengths = torch.tensor([[float(len(text))] for text in group])
        loss: Tensor = self.modules(lengths).square().mean() * self.gives
        return loss

    def _update(self, groups: Sequence[Sequence[str]]) -> float:
        if self.progress.updates + 1 == self.fails_at:
            self.optimizer.register_step_post_hook(lambda *_: self._spoil())
        return super()._update(groups)

    def _spoil(self) -> None:
        with torch.no_grad():
            next(self.modules.parameters()).fill_(torch.nan)


def trainer(directory: Path, every: float = 0.0, accumulate: int = 1) -> LineTrainer:
    torch.manual_seed(0)
    options = TrainerOptions(updates=4, tokens=2, every=every, accumulate=accumulate)
    return LineTrainer(nn.Linear(1, 1), options, directory / "checkpoint.safetensors", {})


def test_weights_that_are_not_finite_leave_the_last_good_checkpoint(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    run.fails_at = 3
    with pytest.raises(HeadError, match=r"weights after update 3 .*; the last state .*, of update \d, is in"):
        run.train()
    assert all(bool(torch.isfinite(tensor).all()) for tensor in load_file(run.checkpoint).values())
    assert trainer(tmp_path).train().updates == 4


def test_weights_that_are_not_finite_before_the_first_checkpoint_leave_none(tmp_path: Path) -> None:
    run = trainer(tmp_path, every=60.0)
    run.fails_at = 1
    with pytest.raises(HeadError, match="weights after update 1 are not finite numbers; no state was saved before"):
        run.train()
    assert not list(tmp_path.iterdir())


def test_a_loss_that_is_not_a_number_before_any_update_does_not_ask_for_a_lower_rate(tmp_path: Path) -> None:
    run = trainer(tmp_path)
    run.gives = float("nan")
    with pytest.raises(HeadError, match=r"the loss of update 1 is nan, .* --learning-rate does not help"):
        run.train()


def test_a_training_of_few_updates_has_their_mean_loss(tmp_path: Path) -> None:
    assert trainer(tmp_path).train().losses.keys() == {"4"}


def test_an_update_has_as_many_batches_as_are_asked_for(tmp_path: Path) -> None:
    one, two = (trainer(tmp_path / str(count), accumulate=count) for count in (1, 2))
    for run in (one, two):
        run.checkpoint.parent.mkdir()
    # An epoch has two batches: four updates of one batch are two epochs, and of two batches four.
    assert one.train().tokens == 2 * len("abb") and two.train().tokens == 4 * len("abb")
    assert not torch.equal(load_file(one.checkpoint)["head.weight"], load_file(two.checkpoint)["head.weight"])
