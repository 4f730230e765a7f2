"""Slots that attend to each other."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from small_head import KNOWN, SIZE, config, head, tables

from specc.heads import build_head
from specc.heads.amphista import Amphista

pytestmark = pytest.mark.torch


def guesses(module: Amphista) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2)
    state, ids = torch.randn(1, 4, SIZE, generator=generator), torch.tensor([[1, 2, 3, 4]])
    logits: torch.Tensor = module(ids, torch.arange(4)[None], state)["logits"]
    return logits


def causal() -> Amphista:
    """Return the head with slots that see no later ones."""
    module, own = head("amphista"), config("amphista")
    twin = build_head(replace(own, settings={**own.settings, "causal": 1}))
    twin.load_state_dict(module.state_dict())
    twin.attach(tables())
    assert isinstance(twin, Amphista)
    return twin


def later_slots_count(module: Amphista) -> bool:
    """Tell whether the first guess changes if the last slot does."""
    before = guesses(module)
    with torch.no_grad():
        module.slots.bias[-SIZE:] += 1
    assert not torch.equal(guesses(module)[:, :, -1], before[:, :, -1])
    return not torch.equal(guesses(module)[:, :, 0], before[:, :, 0])


def test_a_slot_sees_later_slots_unless_it_is_causal() -> None:
    module = head("amphista")
    assert isinstance(module, Amphista)
    assert guesses(module).shape == (1, 4, 3, KNOWN)
    assert later_slots_count(module) and not later_slots_count(causal())


def test_a_fresh_head_says_one_thing_in_all_slots() -> None:
    module = build_head(config("amphista"))
    module.attach(tables())
    assert isinstance(module, Amphista)
    logits = guesses(module)
    torch.testing.assert_close(logits[:, :, 0], logits[:, :, 2])
