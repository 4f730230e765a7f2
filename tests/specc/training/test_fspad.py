"""Partial alignment: the loss of states is that of the next state, and not of what makes the logits."""

from __future__ import annotations

import pytest
import torch
from small_head import head, recordings, teacher

from specc.heads.fspad import Fspad
from specc.training.batches import collate
from specc.training.eagle import feature_loss
from specc.training.fspad import COURSE

pytestmark = pytest.mark.torch


def test_the_loss_of_states_reads_the_next_state() -> None:
    module, batch = head("fspad"), collate(recordings(2, "fspad"))
    assert isinstance(module, Fspad) and COURSE.besides is not None
    (stream,) = COURSE.unroll(module, batch, 1)
    loss = COURSE.besides(module, batch, [stream])
    torch.testing.assert_close(loss, feature_loss(module.next_state(stream), batch))
    assert not torch.allclose(loss, feature_loss(stream, batch))


def test_at_the_start_the_next_state_is_what_makes_the_logits() -> None:
    module, texts = head("fspad"), recordings(40, "fspad")
    assert isinstance(module, Fspad)
    COURSE.start(module, teacher(), texts)
    (stream,) = COURSE.unroll(module, collate(texts[:2]), 1)
    angle = torch.nn.functional.cosine_similarity(module.next_state(stream), stream, dim=-1)
    assert angle[:, 2:-3].min() > 0.999
