"""The length that a layer expects is trained on the drafts that it makes."""

from __future__ import annotations

import pytest
import torch
from small_head import head, recordings, teacher
from torch import nn

from specc.heads.adaeagle import AdaEagle
from specc.training.acceptance import ranks
from specc.training.adaeagle import COURSE, SHORT, accepted_lengths, length_loss
from specc.training.batches import Batch, collate

pytestmark = pytest.mark.torch
STEPS = 3


def started() -> tuple[AdaEagle, Batch]:
    """Return a head whose drafts are right in part, and text."""
    module = head("adaeagle", 12)
    assert isinstance(module, AdaEagle)
    COURSE.start(module, teacher(), recordings(40, "adaeagle"))
    return module, collate(recordings(3, "adaeagle", seed=4))


def test_a_length_counts_the_right_tokens_before_the_first_wrong_one() -> None:
    module, batch = started()
    lengths = accepted_lengths(module, batch, COURSE.unroll(module, batch, STEPS))
    assert set(lengths.flatten().tolist()) > {0, STEPS}
    texts = recordings(3, "adaeagle", seed=4)
    for text, row in zip(texts, lengths, strict=True):
        (rank,) = ranks(module, COURSE, [text], STEPS)
        for root in range(text.prompt - 1, len(text) - 2 - STEPS):
            column = rank[:, root - text.prompt + 1] == 0
            assert row[root] == column.cumprod().sum()


def test_too_short_a_guess_weighs_more_than_too_long_a_one() -> None:
    module, batch = started()
    nn.init.zeros_(module.length.weight)
    streams = COURSE.unroll(module, batch, STEPS)
    losses = {}
    for guess in (-10.0, 10.0):
        nn.init.constant_(module.length.bias, guess)
        losses[guess] = float(length_loss(module, batch, streams))
    mean = (10 - losses[10.0]) if losses[10.0] < 10 else 0.0
    assert losses[-10.0] == pytest.approx(SHORT * (10 + mean), rel=1e-3)


def test_the_next_state_ends_with_the_length() -> None:
    module, batch = started()
    tokens, state = batch.tokens[:1, 1:], module.fuse(batch.states[:1, :-1].float())
    outputs = module(tokens, torch.arange(batch.slots)[None], state)
    assert state.shape[-1] == module.state_size == outputs["state"].shape[-1]
    torch.testing.assert_close(outputs["state"][..., -1:], module.lengths(tokens, state))
