"""Checkpoints: what is saved is loaded, and a damaged one is named."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_head import head

from specc.heads import Head
from specc.runtime.errors import HeadError, SpeccWarning
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
    with pytest.warns(SpeccWarning, match="of a training with other options or texts"):
        assert load_checkpoint(file, *trained(), {**SETTINGS, "seed": 1}) is None


def test_a_damaged_checkpoint_is_named_with_the_remedy(tmp_path: Path) -> None:
    file = tmp_path / "c.safetensors"
    save_checkpoint(file, *trained(), Progress(), SETTINGS)
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(HeadError, match=r"c.safetensors is damaged .*; delete it to train from the start"):
        load_checkpoint(file, *trained(), SETTINGS)


def saved(file: Path, **progress: Any) -> None:
    """Write a checkpoint, with other fields in its progress."""
    save_checkpoint(file, *trained(), Progress(updates=2, losses={"2": [1.0]}, acceptances={"2": 1.2}), SETTINGS)
    with safe_open(file, "pt") as opened:
        notes = opened.metadata()
    notes["progress"] = json.dumps(json.loads(notes["progress"]) | progress)
    save_file(load_file(file), file, metadata=notes)


@pytest.mark.parametrize(
    "progress",
    [
        {"batch": "x"},
        {"batch": True},
        {"updates": -1},
        {"epoch": 1 << 70},
        {"seconds": float("nan")},
        {"acceptances": {"abc": 1.0}},
        {"acceptances": {"2": "x"}},
        {"losses": {"²": [1.0]}},
        {"losses": []},
        {"by_source": {"given": {"abc": 1.0}}},
        {"unknown": 1},
    ],
)
def test_a_checkpoint_whose_progress_cannot_be_is_damaged(progress: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "c.safetensors"
    saved(file)
    assert load_checkpoint(file, *trained(), SETTINGS) is not None  # Before the file is damaged, it loads.
    saved(file, **progress)
    with pytest.raises(HeadError, match=r"c.safetensors is damaged .*; delete it to train from the start"):
        load_checkpoint(file, *trained(), SETTINGS)


def test_a_checkpoint_with_moments_of_another_shape_or_kind_is_damaged(tmp_path: Path) -> None:
    file = tmp_path / "c.safetensors"
    for change in ("shape", "name"):
        saved(file)
        with safe_open(file, "pt") as opened:
            notes = opened.metadata()
        tensors = load_file(file)
        name = next(name for name in tensors if name.endswith(".exp_avg"))
        moment = tensors.pop(name)
        if change == "shape":
            tensors[name] = torch.zeros(3)
        else:
            tensors[name + "_x"] = moment
        save_file(tensors, file, metadata=notes)
        with pytest.raises(HeadError, match=r"c.safetensors is damaged .*moments"):
            load_checkpoint(file, *trained(), SETTINGS)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_neither_written_nor_loaded(value: float, tmp_path: Path) -> None:
    file = tmp_path / "c.safetensors"
    saved(file)
    before = file.read_bytes()
    head, optimizer = trained()
    with torch.no_grad():
        next(head.parameters())[0] = value
    with pytest.raises(HeadError, match="weights after update 3 are not finite numbers and are not saved"):
        save_checkpoint(file, head, optimizer, Progress(updates=3), SETTINGS)
    assert file.read_bytes() == before
    with safe_open(file, "pt") as opened:
        notes = opened.metadata()
    tensors = load_file(file)
    next(tensor for tensor in tensors.values() if tensor.is_floating_point()).fill_(value)
    save_file(tensors, file, metadata=notes)
    with pytest.raises(HeadError, match=r"c.safetensors is damaged \(it has weights that are not finite numbers\)"):
        load_checkpoint(file, *trained(), SETTINGS)


def test_a_folder_in_the_place_of_a_checkpoint_is_named(tmp_path: Path) -> None:
    file = tmp_path / "c.safetensors"
    file.mkdir()
    with pytest.raises(HeadError, match=r"c.safetensors is no file; delete it"):
        load_checkpoint(file, *trained(), SETTINGS)
    with pytest.raises(HeadError, match=r"c.safetensors is no file; delete it"):
        save_checkpoint(file, *trained(), Progress(), SETTINGS)
