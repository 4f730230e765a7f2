"""Each head learns the token so many behind the next one."""

from __future__ import annotations

import pytest
import torch
from small_head import head, recordings, teacher
from torch import nn

from specc.training.batches import collate
from specc.training.medusa import COURSE

pytestmark = pytest.mark.torch


def test_depth_k_reads_the_state_k_rows_before() -> None:
    module = head("medusa")
    batch = collate(recordings(2, "medusa", length=9))
    for depth, rows in enumerate(COURSE.unroll(module, batch, 3)):
        truth = module(batch.tokens[:, 1:], torch.arange(batch.slots)[None], module.fuse(batch.states[:, :-1].float()))
        logits = COURSE.product(module, depth, rows)
        torch.testing.assert_close(logits[:, depth:], truth["logits"][:, : batch.slots - depth, depth])


def test_it_starts_as_the_model_guesses_its_own_last_token() -> None:
    """With blocks that add nothing, each head says what the model said of the token before."""
    module, texts = head("medusa"), recordings(8, "medusa")
    for name, parameter in module.named_parameters():
        if name.startswith("blocks"):
            nn.init.zeros_(parameter)
    COURSE.start(module, teacher(), texts)
    batch = collate(texts[:1])
    (rows, *_) = COURSE.unroll(module, batch, 1)
    assert module.vocabulary is not None
    choice = module.vocabulary[COURSE.product(module, 0, rows).argmax(-1)]
    assert (choice == batch.tokens[:, 1:]).float().mean() > 0.9
