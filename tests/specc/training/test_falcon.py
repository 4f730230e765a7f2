"""Two tokens a call: what is unrolled is what the head makes call by call, and training glances at the truth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from small_head import SIZE, head, recordings, teacher
from torch import Tensor
from torch.nn import functional

from specc.heads.falcon import BLOCK, LAYERS, PARTS, Falcon
from specc.training import falcon as training
from specc.training.acceptance import ranks
from specc.training.batches import Batch, collate
from specc.training.distillation import Distillation
from specc.training.falcon import COURSE, glances
from specc.training.trainer import Trainer, TrainerOptions

pytestmark = pytest.mark.torch
STEPS = 4
MEMORY = 2 * LAYERS * SIZE
OPTIONS = TrainerOptions(updates=40, tokens=200, warm_up=2, every=1e9, evaluations=2, learning_rate=3e-3)


def falcon() -> Falcon:
    module = head("falcon")
    assert isinstance(module, Falcon)
    return module


@torch.no_grad()
def test_each_depth_has_the_logits_of_a_draft_from_its_root() -> None:
    """Each call of the head here runs all slots before it anew, so nothing is remembered from call to call."""
    module = falcon()
    batch = collate(recordings(2, "falcon", length=9))
    unrolled = [COURSE.product(module, k, rows) for k, rows in enumerate(COURSE.unroll(module, batch, STEPS))]
    states = module.fuse(batch.states[:, :-1].float())
    for root in range(batch.slots - STEPS):
        tokens, state = batch.tokens[:1, 1:], states[:1, : root + 1]
        for depth in (0, 2):
            end = root + depth + 1
            result = module(tokens[:, :end], torch.arange(end)[None], state)
            for part in range(BLOCK):
                ours, theirs = unrolled[depth + part][0, root + depth + part], result["logits"][0, -1, part]
                limit = 1e-4 * float(theirs.abs().max())  # A head without norms has large numbers at its depths.
                torch.testing.assert_close(ours, theirs, atol=limit, rtol=1e-4)
            guesses = [result["state"][:, -1:, :SIZE], result["state"][:, -1:, SIZE + MEMORY :]]
            pair = functional.pad(torch.cat(guesses, 1), (0, (PARTS - 1) * SIZE))
            state = torch.cat([state, pair], 1)


def test_the_closed_form_already_drafts_two_tokens_well() -> None:
    module, texts = falcon(), recordings(40, "falcon")
    COURSE.start(module, teacher(), texts)
    for text in ranks(module, COURSE, recordings(4, "falcon", seed=9), BLOCK):
        assert (text[:, :-3] == 0).mean() > 0.95


def marks(part: float) -> tuple[Batch, Tensor, Tensor]:
    batch = replace(collate(recordings(3, "falcon", length=30)), part=part)
    valid = torch.stack([batch.rows(1 + number) for number in range(BLOCK)], -1)
    wrong = valid & (torch.rand(valid.shape, generator=torch.Generator().manual_seed(1)) < 0.5)
    return batch, wrong, valid


@pytest.mark.parametrize(("part", "share"), [(0.0, 0.6), (1.0, 0.25), (0.5, 0.425)])
def test_as_many_slots_read_the_truth_as_a_share_of_the_mistakes(part: float, share: float) -> None:
    batch, wrong, valid = marks(part)
    glanced_slots = glances(wrong, valid, batch)
    assert glanced_slots.flatten(1).sum(1).tolist() == (share * wrong.flatten(1).sum(1)).round().tolist()
    assert not (glanced_slots & ~valid).any()
    assert (glanced_slots & ~wrong).any()  # The places are any, and not those of mistakes alone.


def test_a_head_without_mistakes_reads_its_own_guesses_alone() -> None:
    batch, wrong, valid = marks(0.0)
    assert not glances(torch.zeros_like(wrong), valid, batch).any()


def test_in_training_the_second_call_reads_guessed_tokens_and_states(monkeypatch: pytest.MonkeyPatch) -> None:
    """If all slots read the truth, both guesses of the second call are those of the first call two rows later."""
    module, batch = falcon(), collate(recordings(2, "falcon", length=9))
    drafts = COURSE.unroll(module, batch, STEPS)
    module.train()
    glanced = COURSE.unroll(module, batch, STEPS)
    for ours, theirs in zip(drafts[:BLOCK], glanced[:BLOCK], strict=True):
        torch.testing.assert_close(ours, theirs)
    assert not torch.allclose(drafts[BLOCK][:, 4:], glanced[BLOCK][:, 4:])
    monkeypatch.setattr(training, "glances", lambda wrong, valid, batch: torch.ones_like(valid))
    truth = COURSE.unroll(module, batch, STEPS)
    torch.testing.assert_close(truth[BLOCK][:, BLOCK:], drafts[0][:, BLOCK:], atol=1e-3, rtol=1e-3)


def test_training_lowers_the_loss_of_every_depth(tmp_path: Path) -> None:
    module, texts = falcon(), recordings(30, "falcon")
    loss = Distillation(teacher(), module.vocabulary)

    def losses() -> list[float]:
        batch = collate(recordings(4, "falcon", seed=9))
        values = []
        with torch.no_grad():
            for depth, features in enumerate(COURSE.unroll(module.eval(), batch, STEPS)):
                rows = batch.rows(depth)
                truth = loss.logits(batch.final[:, 1:][rows].float())
                values.append(float(loss.loss(module.logits(features[rows]), truth)))
        return values

    before = losses()
    Trainer(module, COURSE, loss, OPTIONS, tmp_path / "falcon.safetensors", {}).run(texts, {"toy": texts[:2]})
    assert all(after < 0.9 * first for after, first in zip(losses(), before, strict=True))
