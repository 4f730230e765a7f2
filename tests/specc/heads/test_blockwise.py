"""Guesses of one wide layer under one product."""

from __future__ import annotations

import pytest
import torch
from small_head import KNOWN, SIZE, config, head

from specc.heads import build_head
from specc.heads.blockwise import Blockwise

pytestmark = pytest.mark.torch


def logits_of(module: torch.nn.Module, state: torch.Tensor) -> torch.Tensor:
    slots = state.shape[1]
    logits: torch.Tensor = module(torch.zeros(1, slots, dtype=torch.long), torch.arange(slots)[None], state)["logits"]
    return logits


def test_guesses_differ_and_share_one_product() -> None:
    module = head("blockwise")
    assert isinstance(module, Blockwise) and module.products() == [module.head]
    logits = logits_of(module, torch.randn(1, 5, SIZE))
    assert logits.shape == (1, 5, 3, KNOWN)
    assert not torch.allclose(logits[:, :, 0], logits[:, :, 1])


def test_a_fresh_layer_adds_nothing() -> None:
    module = build_head(config("blockwise"))
    assert isinstance(module, Blockwise)
    state = torch.randn(1, 5, SIZE)
    torch.testing.assert_close(logits_of(module, state), torch.stack([module.head(state)] * 3, -2))
