"""EAGLE's layer and a module for multi-token prediction: their start, and the loss of states."""

from __future__ import annotations

import pytest
import torch
from small_head import head, recordings, teacher

from specc.training.acceptance import ranks
from specc.training.batches import collate
from specc.training.courses import COURSES
from specc.training.eagle import EAGLE, FEATURES, NOISE, feature_loss, unroll_with_noise

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("architecture", ["eagle", "mtp", "fspad", "jakiro"])
def test_the_closed_form_already_drafts_well(architecture: str) -> None:
    """The toy's next state is a linear function of the token, so the start alone finds the next token."""
    module, course = head(architecture), COURSES[architecture]
    module.attach(teacher().embedding, teacher().product)
    before = [(text[0] == 0).mean() for text in ranks(module, course, recordings(4, architecture, seed=9), 2)]
    course.start(module, teacher(), recordings(40, architecture))
    for text in ranks(module, course, recordings(4, architecture, seed=9), 2):
        assert (text[0, :-1] == 0).mean() > 0.95
    assert max(before) < 0.6


def test_the_loss_of_states_is_zero_for_the_models_own() -> None:
    batch = collate(recordings(3, "eagle"))
    final = batch.final[:, 1:].float()
    assert feature_loss(final, batch) == 0
    torch.testing.assert_close(feature_loss(final + 0.5, batch), torch.tensor(FEATURES * 0.5**2 / 2))


def test_noise_is_added_in_training_alone_and_is_the_same_for_a_batch() -> None:
    module, batch = head("eagle"), collate(recordings(2, "eagle"))
    quiet = unroll_with_noise(module, batch, 1)[0]
    module.train()
    first, second = (unroll_with_noise(module, batch, 1)[0] for _ in range(2))
    assert torch.equal(first, second) and not torch.allclose(first, quiet, atol=NOISE / 100)
    assert EAGLE.unroll is unroll_with_noise
