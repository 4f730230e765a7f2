"""Heads over the last state."""

from __future__ import annotations

import pytest
import torch
from small_head import KNOWN, SIZE, config, head

from specc.heads import build_head

pytestmark = pytest.mark.torch


def test_each_head_has_logits_of_its_own() -> None:
    state = torch.randn(1, 5, SIZE)
    logits = head("medusa")(torch.zeros(1, 5, dtype=torch.long), torch.arange(5)[None], state)["logits"]
    assert logits.shape == (1, 5, 3, KNOWN)
    assert not torch.allclose(logits[:, :, 0], logits[:, :, 1])


def test_a_fresh_block_adds_nothing() -> None:
    module = build_head(config("medusa"))
    state = torch.randn(1, 5, SIZE)
    logits = module(torch.zeros(1, 5, dtype=torch.long), torch.arange(5)[None], state)["logits"]
    expected = torch.stack([state @ module.get_submodule(f"heads.{i}").weight.T for i in range(3)], -2)  # type: ignore
    torch.testing.assert_close(logits, expected)
