"""A head whose files do not fit is refused in one line, before anything of the sizes that they name is allocated."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_head import SETTINGS, SIZE, VOCABULARY, head
from torch import Tensor

from specc.heads import Head, load_head, open_head, save_head
from specc.heads.config_file import MOST_BYTES
from specc.runtime.errors import HeadError

pytestmark = pytest.mark.torch
BEYOND_FLOATS = 10**400


def saved(directory: Path, architecture: str = "eagle3", bits: int = 16) -> Path:
    save_head(head(architecture), directory / "h", {}, bits)
    return directory / "h"


def put(directory: Path, path: str, value: Any) -> None:
    """Write a value into a head's config.json, at the place that a path with dots names."""
    file = directory / "config.json"
    config = json.loads(file.read_text())
    *parents, name = path.split(".")
    place = config
    for parent in parents:
        place = place[parent]
    place[name] = value
    file.write_text(json.dumps(config))


def refusal(directory: Path) -> str:
    """Return the message with which a head is refused. It is one line, and no remedy of a bundle."""
    with pytest.raises(HeadError) as raised:
        open_head(directory)
    message = str(raised.value)
    assert "\n" not in message and "bundle" not in message and len(message) < 600
    return message


@pytest.mark.parametrize("architecture", SETTINGS)
def test_a_head_of_every_architecture_passes_the_checks(architecture: str, tmp_path: Path) -> None:
    assert load_head(saved(tmp_path, architecture)).config.architecture == architecture


WRONG_NUMBERS = [
    (architecture, f"settings.{name}", value)
    for architecture, name, values in (
        ("medusa", "heads", (-4, 0, 1.5, 10**12, 1e30, BEYOND_FLOATS, float("nan"), "4", None, True, [4])),
        ("eagle3", "heads", (-4, 0, 3, 10**12)),
        ("eagle3", "key_heads", (-2, 0, 3, 10**9)),
        ("eagle3", "head_size", (-8, 0, 7, 10**9, BEYOND_FLOATS)),
        ("eagle3", "mlp_size", (-1, 0.5, 10**9, 1e30)),
        ("eagle3", "layers", (-1, 10**9)),
        ("eagle3", "tap_norm", (-1, 3)),
        ("eagle3", "token", (2,)),
        ("eagle3", "eps", (0, -1e-6, float("inf"), 2)),
        ("eagle3", "rope_theta", (0, -1, float("nan"), 1e300)),
        ("hydra", "depths", (0, 10**9)),
        ("clover", "parts", (0, 5)),
        ("s3d", "skipped", (0, 10**9)),
        ("m2r2", "rank", (0, 10**9)),
    )
    for value in values
] + [
    ("eagle3", name, value)
    for name, values in (
        ("draft_vocab_size", (-1, 0, VOCABULARY + 1, 10**15, 1.0)),
        ("target.hidden_size", (-SIZE, 0, 10**9)),
        ("target.vocab_size", (0, 10**15)),
        ("target.layers", (0, 10**9)),
        ("taps", ([-2], [4], [0] * 2000)),
    )
    for value in values
]  # fmt: skip


@pytest.mark.parametrize(("architecture", "path", "value"), WRONG_NUMBERS)
def test_a_number_out_of_range_is_refused_by_its_name(architecture: str, path: str, value: Any, tmp_path: Path) -> None:
    directory = saved(tmp_path, architecture)
    put(directory, path, value)
    message = refusal(directory)
    assert "config.json" in message and path.rpartition(".")[2].removesuffix("s") in message
    assert message.endswith(("train the head again", "name a directory that 'specc train' wrote"))


def test_an_unknown_setting_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    directory = saved(tmp_path)
    put(directory, "settings.key_head", 2)
    assert "unknown setting 'key_head' (did you mean 'key_heads'?); train the head again" in refusal(directory)


def test_a_name_that_could_steer_a_terminal_is_refused(tmp_path: Path) -> None:
    directory = saved(tmp_path)
    put(directory, "target.name", "a\x1b[2Jb")
    assert "target.name: 'a\\x1b[2Jb' has characters that cannot be printed; name a directory" in refusal(directory)


WRONG_TENSORS: dict[str, tuple[Callable[[Tensor], Tensor | None], str]] = {
    "missing": (lambda tensor: None, r"lacks the tensor fc.weight of shape [32, 96], which config.json asks for"),
    "another shape": (lambda tensor: tensor[:, :-1], "fc.weight of shape [32, 95], and config.json asks for [32, 96]"),
    "a vector": (lambda tensor: tensor[0], "fc.weight of shape [96], and config.json asks for [32, 96]"),
    "a number alone": (lambda tensor: tensor[0, 0], "fc.weight of shape [], and config.json asks for [32, 96]"),
    "NaN": (lambda tensor: tensor.index_fill(1, torch.tensor([3]), float("nan")), "the number nan in fc.weight"),
    "infinity": (lambda tensor: tensor.index_fill(1, torch.tensor([3]), float("inf")), "the number inf in fc.weight"),
    "bool": (lambda tensor: tensor > 0, "fc.weight of type bool; it must have floating-point numbers"),
    "complex": (lambda tensor: tensor.to(torch.complex64), "fc.weight of type complex64; it must have floating"),
    "int64": (lambda tensor: tensor.long(), "fc.weight of type int64; it must have floating-point numbers"),
}


def change_tensor(directory: Path, name: str, change: Callable[[Tensor], Tensor | None]) -> None:
    file = directory / "model.safetensors"
    tensors = load_file(file)
    changed = change(tensors.pop(name))
    save_file(tensors if changed is None else tensors | {name: changed.contiguous()}, file)


@pytest.mark.parametrize("kind", WRONG_TENSORS)
def test_a_tensor_that_does_not_fit_is_refused_by_its_name(kind: str, tmp_path: Path) -> None:
    change, message = WRONG_TENSORS[kind]
    directory = saved(tmp_path)
    change_tensor(directory, "fc.weight", change)
    assert f"{message}" in refusal(directory)


def test_a_superfluous_tensor_is_refused_by_its_name(tmp_path: Path) -> None:
    file = saved(tmp_path) / "model.safetensors"
    save_file(load_file(file) | {"fc.bias": torch.zeros(3)}, file)
    assert "the tensor fc.bias of shape [3], which a head of eagle3 with this config.json does" in refusal(file.parent)


WRONG_SCALES: dict[str, Callable[[Tensor], Tensor | None]] = {
    "none": lambda scales: None,
    "a vector": lambda scales: scales[:, 0],
    "of fewer rows": lambda scales: scales[:-1],
    "of more groups": lambda scales: torch.cat([scales, scales], 1),
    "NaN": lambda scales: scales * float("nan"),
    "whole numbers": lambda scales: scales.long(),
}


@pytest.mark.parametrize("kind", WRONG_SCALES)
def test_scales_that_do_not_fit_their_matrix_are_refused_by_their_name(kind: str, tmp_path: Path) -> None:
    directory = saved(tmp_path, bits=8)
    change_tensor(directory, "fc.weight.scales", WRONG_SCALES[kind])
    assert "fc.weight.scales" in refusal(directory)


def test_a_vector_in_eight_bits_is_refused(tmp_path: Path) -> None:
    directory = saved(tmp_path, bits=8)
    change_tensor(directory, "fc.weight", lambda tensor: tensor[0])
    assert "fc.weight in 8 bits and of shape [96]; only matrices are" in refusal(directory)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda tokens: tokens - 1, "names tokens outside 0..39, such as -1"),
        (lambda tokens: tokens.clamp(min=3), "names the token 3 more than once"),
        (lambda tokens: tokens.float(), "vocabulary of type float32; it must have whole numbers"),
        (lambda tokens: tokens > 0, "vocabulary of type bool; it must have whole numbers"),
    ],
)
def test_a_vocabulary_that_is_none_is_refused(change: Callable[[Tensor], Tensor], message: str, tmp_path: Path) -> None:
    directory = saved(tmp_path)
    change_tensor(directory, "vocabulary", change)
    assert message in refusal(directory)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_pipe_is_refused_and_not_waited_for(name: str, tmp_path: Path) -> None:
    directory = saved(tmp_path)
    (directory / name).unlink()
    os.mkfifo(directory / name)
    assert f"{name} is not a regular file" in refusal(directory)


def test_a_configuration_without_an_end_is_refused(tmp_path: Path) -> None:
    directory = saved(tmp_path)
    (directory / "config.json").write_text(" " * MOST_BYTES + "{}")
    assert "config.json has more than 1 MiB" in refusal(directory)


def test_every_change_of_a_configuration_is_refused_or_gives_a_head(tmp_path: Path) -> None:
    directory = saved(tmp_path)
    original = (directory / "config.json").read_text()
    config = json.loads(original)
    places = [*config, *(f"{part}.{name}" for part in ("target", "settings") for name in config[part])]
    values: list[object] = [
        None,
        True,
        "x",
        [],
        {},
        [1],
        -1,
        0,
        1,
        2,
        5,
        0.5,
        10**9,
        10**20,
        1e300,
        BEYOND_FLOATS,
        float("nan"),
    ]
    draws = random.Random(0)
    results: list[bool] = []
    for place in places:
        for value in draws.sample(values, 6):
            (directory / "config.json").write_text(original)
            put(directory, place, value)
            try:
                results.append(isinstance(open_head(directory), Head))
            except HeadError:
                results.append(False)
    assert any(results) and not all(results)
