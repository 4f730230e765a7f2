"""What is checked in a checkpoint's directory before transformers reads it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from specc.huggingface import load_tokenizer
from specc.huggingface.directory import check_directory
from specc.runtime.errors import CaptureError, SpeccWarning

pytestmark = pytest.mark.torch

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n"


def complaint(directory: Path) -> str:
    with pytest.raises(CaptureError) as error:
        check_directory(directory)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", "tokenizer.model"])
def test_a_pointer_of_git_lfs_is_named_with_the_remedy(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(POINTER)
    assert f"{name} is a git-lfs pointer, not the file itself; run git lfs pull" in complaint(tmp_path)


def test_a_pointer_is_named_before_the_tokenizer_is_read(tmp_path: Path) -> None:
    """The tokenizer is what a compile reads first."""
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        (tmp_path / name).write_text(POINTER)
    with pytest.raises(CaptureError, match=r"config\.json is a git-lfs pointer, not the file itself; run git lfs pull"):
        load_tokenizer(str(tmp_path))


@pytest.mark.parametrize("shard", ["w.bin", "../m.safetensors", "/etc/m.safetensors", "a/b.safetensors"])
def test_an_index_names_safetensors_of_its_directory_only(shard: str, tmp_path: Path) -> None:
    """Transformers would unpickle the first, and read the others from elsewhere."""
    index = {"weight_map": {"a": shard}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "a shard must be a .safetensors file of the same directory" in complaint(tmp_path)


def test_a_shard_that_is_missing_is_named(tmp_path: Path) -> None:
    index = {"weight_map": {"a": "m-1.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "names m-1.safetensors, which is missing" in complaint(tmp_path)


@pytest.mark.parametrize("text", ["[]", "{", "null", "[" * 100_000, '{"weight_map": []}'])
def test_an_index_that_is_not_one_is_one_line(text: str, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors.index.json").write_text(text)
    assert "download" in complaint(tmp_path)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.pt", "model.pth", "model.ckpt"])
def test_pickled_weights_are_refused_with_the_way_to_convert(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    assert f"as a pickle ({name})" in complaint(tmp_path)


def test_an_adapter_alone_names_its_base_and_the_option(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": "org/base"}))
    assert "specc compile org/base --adapter" in complaint(tmp_path)


def test_an_adapter_beside_whole_weights_is_mentioned(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "config.json").write_text("{}")
    with pytest.warns(SpeccWarning, match="holds an adapter, which is not applied; give --adapter"):
        check_directory(tmp_path)
