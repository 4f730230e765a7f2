"""Checkpoints: what is saved is loaded, and a damaged one is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
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


def test_a_tensor_of_two_names_is_written_once_and_comes_back_under_both(tmp_path: Path) -> None:
    def modules() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
        module = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
        module[1].weight = module[0].weight
        optimizer = torch.optim.AdamW(module.parameters())
        for parameter in module.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        return module, optimizer

    first, second = modules(), modules()
    file = tmp_path / "c.safetensors"
    save_checkpoint(file, *first, Progress(), SETTINGS)
    assert len([name for name in load_file(file) if name.endswith(".weight")]) == 1
    assert load_checkpoint(file, *second, SETTINGS) == Progress()
    assert second[0][1].weight is second[0][0].weight  # type: ignore[index]
    for one, other in zip(first[0].parameters(), second[0].parameters(), strict=True):
        assert torch.equal(one, other)


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
