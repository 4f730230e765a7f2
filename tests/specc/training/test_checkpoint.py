"""Checkpoints: what is saved is loaded, and a damaged one is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_head import head

from specc.heads import Head
from specc.runtime.errors import HeadError
from specc.training.checkpoint import Progress, load_checkpoint, save_checkpoint

pytestmark = pytest.mark.torch
SETTINGS = {"seed": 0, "taps": [0, -1]}


def trained() -> tuple[Head, torch.optim.Optimizer]:
    """Return a head after one update, with its optimizer."""
    module = head("medusa")
    optimizer = torch.optim.AdamW([{"params": [parameter]} for parameter in module.parameters()])
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return module, optimizer


def test_weights_moments_and_progress_come_back(tmp_path: Path) -> None:
    first, second = trained(), trained()
    progress = Progress(updates=7, tokens=9, seconds=1.5, epoch=2, batch=3, losses={"7": [1.0]}, acceptances={"0": 1.2})
    file = tmp_path / "c.safetensors"
    save_checkpoint(file, *first, progress, SETTINGS)
    with torch.no_grad():
        for parameter in second[0].parameters():
            parameter.zero_()
        second[1].state.clear()
    assert load_checkpoint(file, *second, SETTINGS) == progress
    for one, other in zip(first[0].parameters(), second[0].parameters(), strict=True):
        assert torch.equal(one, other)
        for key, value in first[1].state[one].items():
            assert torch.equal(value, second[1].state[other][key])
    assert [f.name for f in tmp_path.iterdir()] == ["c.safetensors"]


def test_no_checkpoint_and_one_of_other_settings_give_nothing(tmp_path: Path) -> None:
    file = tmp_path / "c.safetensors"
    assert load_checkpoint(file, *trained(), SETTINGS) is None
    save_checkpoint(file, *trained(), Progress(), SETTINGS)
    assert load_checkpoint(file, *trained(), {**SETTINGS, "seed": 1}) is None


def test_a_damaged_checkpoint_is_named_with_the_remedy(tmp_path: Path) -> None:
    file = tmp_path / "c.safetensors"
    save_checkpoint(file, *trained(), Progress(), SETTINGS)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(HeadError, match=r"c.safetensors is damaged .*; delete it to train from the start"):
        load_checkpoint(file, *trained(), SETTINGS)
