"""The head of S3D: its layers, its bridge and what a draft costs."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_head import LAYERS, SIZE, config, head

from specc.heads import build_head
from specc.heads.s3d import S3D
from specc.runtime.block import Layers
from specc.runtime.errors import HeadError

pytestmark = pytest.mark.torch


def test_a_fresh_bridge_hands_states_on() -> None:
    module = head("s3d")
    assert isinstance(module, S3D)
    states = torch.randn(9, SIZE)
    module.begin(states)
    torch.testing.assert_close(module.bridge(states[None]), states[None])


def test_drafts_leave_out_the_layers_in_whose_place_the_bridge_stands() -> None:
    module = head("s3d")
    assert isinstance(module, S3D) and module.bridge_taps == (0,)
    assert module.draft_layers == Layers(skip_attention=(1,), skip_mlp=(1,), bridge="s3d")


def test_a_draft_costs_the_layers_that_are_left_however_long_it_is() -> None:
    module = head("s3d")
    assert module.draft_cost(1, 10**6) == module.draft_cost(4, 10**6) == pytest.approx(1 - 1 / LAYERS)
    assert module.step_slots(4) == 5


@pytest.mark.parametrize(("first", "count"), [(0, 1), (1, LAYERS), (1, 0)])
def test_layers_that_are_not_there_are_refused(first: int, count: int) -> None:
    right = config("s3d")
    wrong = replace(right, settings={**right.settings, "first_skipped": first, "skipped": count})
    with pytest.raises(HeadError, match=f"skips {count} layers from layer {first} on, and the model has layers 0..2"):
        build_head(wrong)
