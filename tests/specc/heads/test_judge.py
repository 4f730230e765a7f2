"""The head that judges tokens."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_head import LAYERS, SIZE, VOCABULARY, config

from specc.heads import build_head

pytestmark = pytest.mark.torch


@torch.no_grad()
def test_its_state_is_one_number_for_each_token() -> None:
    choice = replace(config("medusa", VOCABULARY), architecture="judge", taps=(LAYERS,), settings={})
    head = build_head(choice)
    taps = torch.randn(1, 5, SIZE)
    state = head.fuse(taps)
    assert state.shape == (1, 5, 1) and head.state_size == 1 and not head.attends and not head.recurrent
    weight, bias = head.get_parameter("score.weight"), head.get_parameter("score.bias")
    torch.testing.assert_close(state[..., 0], taps @ weight[0] + bias)
