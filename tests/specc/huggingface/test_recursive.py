"""The directory of a recursive model: what is stored, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from graphs import model, tokens
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from specc.compiler.capture import capture
from specc.huggingface import describe, load_model
from specc.huggingface.recursive import ENTRY, FILE, divisors, loops_of, save_recursive
from specc.runtime.errors import CaptureError
from specc.training.recursive import share_layers

pytestmark = pytest.mark.torch


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    draft = share_layers(model("llama"), 3, 4)
    assert draft.generation_config is not None
    draft.generation_config.eos_token_id = 7
    save_recursive(draft, tmp_path / "r")
    return tmp_path / "r"


@torch.no_grad()
def test_what_is_saved_is_loaded_and_its_graph_computes_what_it_computes(directory: Path) -> None:
    saved: Any = share_layers(model("llama"), 3, 4)
    other: Any = load_model(str(directory))
    right = saved(input_ids=tokens()).logits
    assert torch.equal(other(input_ids=tokens()).logits, right)
    assert loops_of(other) == 3 and describe(other, "r").eos_token_ids == (7,)
    graph = capture(other)
    torch.testing.assert_close(graph(tokens(), torch.arange(tokens().shape[1])[None])["logits"], right)
    layers = other.get_submodule("model.layers")
    assert layers[2].mlp.up_proj.weight is layers[0].mlp.up_proj.weight is not layers[0].mlp.gate_proj.weight


def test_shared_tensors_are_stored_once(directory: Path) -> None:
    stored, whole = load_file(directory / FILE), model("llama").state_dict()
    matrices = [name for name in stored if "layers" in name and name.endswith("_proj.weight")]
    assert len(matrices) == 7 and all(".layers.0." in name for name in matrices)
    own = sum(t.numel() for name, t in stored.items() if name.endswith((".up", ".down")))
    shared = sum(whole[name].numel() for name in whole if "layers" in name and name.endswith("_proj.weight"))
    assert sum(stored[name].numel() for name in matrices) * 3 == shared > 3 * own


def test_transformers_does_not_take_the_directory_for_a_whole_model(directory: Path) -> None:
    with pytest.raises(OSError, match=r"model\.safetensors"):
        AutoModelForCausalLM.from_pretrained(str(directory))


def _entry(directory: Path, value: Any) -> None:
    file = directory / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {ENTRY: value}))


def _tensors(directory: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(directory / FILE)
    change(tensors)
    save_file(tensors, directory / FILE)


NORM = "model.norm.weight"
FAULTS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no numbers": (lambda d: _entry(d, {"loops": "3"}), "expected whole numbers loops and rank"),
    "no object": (lambda d: _entry(d, 3), "expected whole numbers loops and rank"),
    "a truth value": (lambda d: _entry(d, {"loops": 3, "rank": True}), "expected whole numbers loops and rank"),
    "two loops": (lambda d: _entry(d, {"loops": 2, "rank": 4}), "3 layers cannot run in 2 loops; give one of 3"),
    "another rank": (lambda d: _entry(d, {"loops": 3, "rank": 5}), "has the shape .*, and config.json asks for"),
    "no file": (lambda d: (d / FILE).unlink(), f"has no {FILE} that can be read"),
    "a broken file": (lambda d: (d / FILE).write_bytes(b"\0" * 9), f"has no {FILE} that can be read"),
    "a tensor less": (lambda d: _tensors(d, lambda t: t.pop(NORM)), f"{FILE} lacks {NORM}"),
    "a tensor more": (lambda d: _tensors(d, lambda t: t.update(x=t[NORM].clone())), f"{FILE} has a tensor too many, x"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_damaged_directory_is_named_in_a_line(fault: str, directory: Path) -> None:
    change, message = FAULTS[fault]
    change(directory)
    with pytest.raises(CaptureError, match=message) as error:
        load_model(str(directory))
    assert "\n" not in str(error.value) and str(directory) in str(error.value)


def test_the_numbers_of_loops_divide_the_layers() -> None:
    assert divisors(12) == [2, 3, 4, 6, 12]
    assert divisors(7) == [7] and divisors(1) == []
    assert loops_of(model("llama")) == 1
