"""GGUF files: found, checked, joined, and loaded as the model that they hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

gguf = pytest.importorskip("gguf")
pytest.importorskip("accelerate")

from gguf_file import KIND, LAYERS, WORDS, tensors, write  # noqa: E402
from shell import refused  # noqa: E402

from specc.huggingface import load_model, load_tokenizer, rounding  # noqa: E402
from specc.huggingface.gguf import find_gguf, join_parts, read_gguf, read_once  # noqa: E402
from specc.runtime.errors import CaptureError  # noqa: E402

pytestmark = pytest.mark.torch


def split(directory: Path) -> list[Path]:
    """Write the model as two parts."""
    names = list(tensors())
    halves = names[: len(names) // 2], names[len(names) // 2 :]
    files = [directory / f"m-{number:05d}-of-00002.gguf" for number in (1, 2)]
    for file, half in zip(files, halves, strict=True):
        write(file, names=half, header=file == files[0])
    return files


@pytest.mark.parametrize("kind", [KIND.F32, KIND.F16, KIND.BF16, KIND.Q8_0, KIND.Q4_0, KIND.Q4_1, KIND.Q5_0, KIND.Q5_1])
def test_a_file_loads_as_the_weights_that_its_type_holds(kind: Any, tmp_path: Path) -> None:
    """Widening is exact: each weight is what the type's blocks say."""
    model = load_model(str(write(tmp_path / "m.gguf", kind)))
    expected = tensors()["blk.1.ffn_down.weight"]
    if kind != KIND.F32:
        expected = gguf.quants.dequantize(gguf.quants.quantize(expected, kind), kind)
    np.testing.assert_array_equal(model.model.layers[1].mlp.down_proj.weight.numpy(), expected)
    stored = rounding(model)
    if kind in (KIND.F32, KIND.F16, KIND.BF16):
        assert stored == {}
    else:
        assert stored == {"method": "gguf", "types": {kind.name: 1 + 7 * LAYERS}}


def test_a_directory_with_one_file_means_that_file(tmp_path: Path) -> None:
    file = write(tmp_path / "m.gguf")
    assert find_gguf(tmp_path) == find_gguf(file) == (file,)
    assert load_tokenizer(str(tmp_path)).convert_ids_to_tokens(5) == WORDS[5]


def test_a_directory_with_two_models_names_both(tmp_path: Path) -> None:
    write(tmp_path / "a.gguf"), write(tmp_path / "b.gguf")
    with pytest.raises(CaptureError, match=r"holds 2 GGUF models: a\.gguf, b\.gguf; name one file"):
        find_gguf(tmp_path)


def test_a_split_file_loads_as_the_whole_one(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    first, second = split(tmp_path / "parts")
    assert find_gguf(second) == find_gguf(tmp_path / "parts") == (first, second)
    whole, joined = load_model(str(write(tmp_path / "m.gguf"))), load_model(str(second))
    for name, value in whole.state_dict().items():
        assert torch.equal(value, joined.state_dict()[name])
    assert load_tokenizer(str(second)).get_vocab() == load_tokenizer(str(tmp_path / "m.gguf")).get_vocab()


def test_a_part_that_is_missing_is_named(tmp_path: Path) -> None:
    first, second = split(tmp_path)
    first.unlink()
    with pytest.raises(CaptureError, match=r"one of 2 parts, and m-00001-of-00002\.gguf is missing"):
        find_gguf(second)


def test_joining_changes_no_bit(tmp_path: Path) -> None:
    whole = gguf.GGUFReader(write(tmp_path / "whole.gguf", KIND.Q4_0))
    (tmp_path / "parts").mkdir()
    names = list(tensors())
    for number, half in ((1, names[:5]), (2, names[5:])):
        write(tmp_path / "parts" / f"m-{number:05d}-of-00002.gguf", KIND.Q4_0, half, header=number == 1)
    parts = find_gguf(tmp_path / "parts")
    assert parts is not None
    joined = gguf.GGUFReader(join_parts(parts, tmp_path / "joined.gguf"))
    ours, theirs = ({t.name: t for t in reader.tensors} for reader in (whole, joined))
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        assert tensor.tensor_type == theirs[name].tensor_type
        np.testing.assert_array_equal(tensor.data, theirs[name].data)


def test_a_type_that_is_not_read_names_the_nearest(tmp_path: Path) -> None:
    file = write(tmp_path / "m.gguf")
    data = bytearray(file.read_bytes())
    name = b"blk.0.attn_q.weight"
    at = data.index(name) + len(name) + 4 + 2 * 8  # after the number of dimensions and two of them: the type
    data[at : at + 4] = int(KIND.IQ4_NL).to_bytes(4, "little")
    file.write_bytes(data)
    with pytest.raises(CaptureError, match=r"tensors of type IQ4_NL, which specc does not read; the nearest .* Q4_K"):
        read_gguf((file,))
    line = refused("compile", file, "-o", tmp_path / "m.specc", "--dtype", "gguf")
    assert "m.gguf has tensors of type IQ4_NL" in line and line.endswith("Q4_K: quantise the model to that")


@pytest.mark.parametrize("content", [b"", b"GGUF", b"GGUF\3\0\0\0", b"not gguf at all"])
def test_a_damaged_file_is_one_line(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "m.gguf"
    file.write_bytes(content)
    with pytest.raises(CaptureError) as error:
        load_model(str(file))
    assert "m.gguf" in str(error.value) and "download it again" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("load", [load_model, load_tokenizer])
def test_a_pointer_of_git_lfs_is_named_by_whatever_reads_the_file(load: Any, tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:abc\nsize 123\n")
    for source in (tmp_path, tmp_path / "m.gguf"):
        with pytest.raises(CaptureError, match=r"m\.gguf is a git-lfs pointer, not the file itself; run git lfs pull"):
            load(str(source))


def test_a_damaged_file_is_not_called_one_without_a_tokenizer(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"GGUF\3\0\0\0")
    with pytest.raises(CaptureError, match=r"m\.gguf cannot be read as GGUF: .*; download it again"):
        load_tokenizer(str(tmp_path))


def test_a_file_that_is_cut_in_its_tensors_is_one_line(tmp_path: Path) -> None:
    file = write(tmp_path / "m.gguf")
    file.write_bytes(file.read_bytes()[:-1000])
    with pytest.raises(CaptureError, match="cannot be read as GGUF"):
        load_model(str(file))


def test_another_file_is_not_taken_for_a_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(CaptureError, match="is a file and not GGUF"):
        load_model(str(tmp_path / "notes.txt"))


def test_a_file_is_read_once_and_its_names_are_mapped_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A load asks for both several times."""
    file = write(tmp_path / "model.gguf")
    opened: list[Any] = []
    mapped: list[Any] = []
    begin, name_map = gguf.GGUFReader.__init__, gguf.get_tensor_name_map

    def counted(self: Any, path: Any, mode: Any = "r") -> None:
        opened.append(path)
        begin(self, path, mode)

    def counted_map(*key: Any) -> Any:
        mapped.append(key)
        return name_map(*key)

    monkeypatch.setattr(gguf.GGUFReader, "__init__", counted)
    monkeypatch.setattr(gguf, "get_tensor_name_map", counted_map)
    reader, mapping = gguf.GGUFReader, gguf.get_tensor_name_map
    with read_once():  # as in a compile
        load_tokenizer(str(file))
        load_model(str(file))
    assert (len(opened), len(mapped)) == (1, 1)
    load_model(str(file))
    assert (len(opened), len(mapped)) == (2, 2)
    assert (gguf.GGUFReader, gguf.get_tensor_name_map) == (reader, mapping)


def test_the_next_load_reads_a_file_anew(tmp_path: Path) -> None:
    """A changed file must not be taken for what it was."""
    file = write(tmp_path / "model.gguf")
    first = load_model(str(file)).state_dict()["model.norm.weight"]
    changed = gguf.GGUFReader(file, "r+")
    next(tensor for tensor in changed.tensors if tensor.name == "output_norm.weight").data[:] = 3.0
    changed.data.flush()
    second = load_model(str(file)).state_dict()["model.norm.weight"]
    assert not torch.equal(first, second) and torch.equal(second, torch.full_like(second, 3.0))
