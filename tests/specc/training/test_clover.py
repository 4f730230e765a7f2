"""Clover-2: the cell step by step in plain torch, and the two losses that its training lowers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_head import head, recordings, teacher
from torch import Tensor
from torch.nn import functional

from specc.heads.clover import Clover
from specc.training.batches import collate
from specc.training.clover import CLOVER_2, COURSE, DEPTHS, regression
from specc.training.course import Course
from specc.training.distillation import Distillation
from specc.training.trainer import Trainer, TrainerOptions

pytestmark = pytest.mark.torch
OPTIONS = TrainerOptions(updates=150, tokens=200, warm_up=2, every=1e9, evaluations=2, learning_rate=3e-3)
PARTS = 4


def clover_2() -> Clover:
    module = head("clover_2")
    assert isinstance(module, Clover)
    return module


def unit(x: Tensor, eps: float) -> Tensor:
    """Divide by the root mean square."""
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt()


def cell(module: Clover, state: Tensor, token: Tensor) -> tuple[Tensor, Tensor]:
    """Make a guess from the state [D] and the normed embedding [D]. Return it, and the state of the next guess.

    It adds V(e) * cos(Q(norm h), K(e)) to the guess in each part, and then an MLP over the guess and the token.
    """
    guess = state + module.token.weight @ token
    query = (module.query.weight @ unit(guess, module.eps)).view(PARTS, -1)
    key, value = ((product.weight @ token).view(PARTS, -1) for product in (module.key, module.value))
    read = functional.cosine_similarity(query, key, -1)[:, None] * value
    guess = guess + module.output.weight @ read.flatten()
    assert module.up is not None and module.down is not None
    inner = module.up.weight @ torch.cat([unit(guess, module.eps), token]) + module.up.bias
    guess = guess + module.down.weight @ (inner * torch.sigmoid(inner))
    return guess, module.own.weight @ unit(guess, module.eps)


@torch.no_grad()
def test_each_unrolled_guess_is_that_of_the_cell_step_by_step() -> None:
    """The decoder layers read the model's states. The cell then runs alone, once for each drafted token."""
    module, batch = clover_2(), collate(recordings(2, "clover_2", length=10))
    unrolled = CLOVER_2.unroll(module, batch, DEPTHS)
    assert module.embedding is not None
    tokens = unit(module.embedding[batch.tokens[:, 1:]], module.eps)
    behind_layers = module.run_layers(
        torch.arange(batch.slots)[None],
        module.fuse(batch.states[:, :-1].float()),
        [layer.attend for layer in module.decoder_layers()],
    )
    for root in range(batch.slots - DEPTHS):
        state = behind_layers[0, root]
        for depth in range(DEPTHS):
            guess, state = cell(module, state, tokens[0, root + depth])
            torch.testing.assert_close(unrolled[depth][0, root + depth], guess, atol=1e-3, rtol=1e-3)


def test_the_regression_compares_what_the_last_product_reads_and_later_depths_weigh_less() -> None:
    module, batch = clover_2(), collate(recordings(2, "clover_2"))
    truth = batch.final[:, 1:].float()
    with torch.no_grad():
        module.norm.fill_(1.0)
    exact = [truth * 7.0] * 2
    scale = truth.square().mean(-1, keepdim=True).sqrt()
    rows = batch.rows(0)
    expected = 10 * functional.smooth_l1_loss((truth / scale)[rows], truth[rows])
    torch.testing.assert_close(regression(module, batch, exact[:1]), expected, atol=1e-4, rtol=1e-4)
    second = regression(module, batch, exact) - regression(module, batch, exact[:1])
    later = batch.rows(1)
    expected_later = 8 * functional.smooth_l1_loss((truth / scale)[later], truth[later])
    torch.testing.assert_close(second, expected_later, atol=1e-4, rtol=1e-4)


def test_clover_has_no_regression() -> None:
    assert COURSE.besides is None and CLOVER_2.besides is regression


def losses(module: Clover) -> tuple[float, float]:
    """Return the regression and the cross entropy of held-out text, summed over the depths."""
    batch, loss = collate(recordings(4, "clover_2", seed=9)), Distillation(teacher(), module.vocabulary)
    with torch.no_grad():
        guesses = CLOVER_2.unroll(module, batch, DEPTHS)
        entropies = []
        for depth, guess in enumerate(guesses):
            rows = batch.rows(depth)
            truth = loss.logits(batch.final[:, 1:][rows].float())
            entropies.append(float(loss.loss(module.logits(guess[rows]), truth)))
        return float(regression(module, batch, guesses)), sum(entropies)


@pytest.mark.slow
def test_training_lowers_both_losses(tmp_path: Path) -> None:
    """The control learns the probabilities alone, and its guesses stay far from the model's states."""

    def train(course: Course, name: str) -> tuple[float, float]:
        module = clover_2()
        loss = Distillation(teacher(), module.vocabulary)
        run = Trainer(module, course, loss, OPTIONS, tmp_path / f"{name}.safetensors", {})
        run.run(recordings(30, "clover_2"), {"toy": recordings(4, "clover_2", seed=9)})
        return losses(module)

    before, after, control = losses(clover_2()), train(CLOVER_2, "ours"), train(replace(CLOVER_2, besides=None), "none")
    assert after[0] < 0.8 * before[0] and after[1] < 0.8 * before[1]
    assert after[0] < 0.8 * control[0]
