"""A head's directory: what is written is read again, and what is no head is refused with a remedy."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_head import VOCABULARY, head

from specc.heads import digest, load_head, save_head
from specc.runtime.errors import HeadError

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("architecture", ["eagle3", "medusa"])
@pytest.mark.parametrize(("bits", "error"), [(16, 4e-3), (8, 1.1e-2)])
def test_a_head_that_was_saved_is_loaded_with_its_numbers(
    architecture: str, bits: int, error: float, tmp_path: Path
) -> None:
    saved = head(architecture)
    save_head(saved, tmp_path / "h", {"card.json": "{}"}, bits)
    restored = load_head(tmp_path / "h")
    assert restored.config == saved.config and not restored.training
    assert sorted(f.name for f in (tmp_path / "h").iterdir()) == ["card.json", "config.json", "model.safetensors"]
    for name, tensor in saved.state_dict().items():
        limit = error * float(tensor.abs().max())
        assert torch.allclose(restored.state_dict()[name].float(), tensor.float(), atol=limit, rtol=0), name


def test_eight_bits_take_half_the_space(tmp_path: Path) -> None:
    for bits in (8, 16):
        save_head(head("eagle3"), tmp_path / str(bits), {}, bits)
    small, large = ((tmp_path / str(bits) / "model.safetensors").stat().st_size for bits in (8, 16))
    assert small < 0.8 * large


def test_the_embedding_table_is_not_saved(tmp_path: Path) -> None:
    save_head(head("eagle3"), tmp_path / "h", {})
    assert "embedding" not in load_file(tmp_path / "h" / "model.safetensors")


def test_a_head_replaces_the_one_that_is_there(tmp_path: Path) -> None:
    save_head(head("medusa"), tmp_path / "h", {"old.txt": "old"})
    save_head(head("eagle3"), tmp_path / "h", {})
    assert load_head(tmp_path / "h").config.architecture == "eagle3"
    assert [f.name for f in tmp_path.iterdir()] == ["h"] and not (tmp_path / "h" / "old.txt").exists()


def test_a_directory_that_is_not_there_is_named_with_the_command_that_makes_one(tmp_path: Path) -> None:
    with pytest.raises(HeadError, match=r"there is no head at .*/h; make one with: specc train MODEL"):
        load_head(tmp_path / "h")


def test_a_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(
        HeadError, match=r"as a pickle \(pytorch_model.bin\), which can run code; .*safetensors.torch.save_file"
    ):
        load_head(tmp_path)


def test_a_directory_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HeadError, match=r"has no config.json and model.safetensors; name a directory"):
        load_head(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "eagle9"}, "unknown architecture 'eagle9'; there are eagle3, medusa"),
        ({"settings": {}}, "no setting 'eps', which eagle3 needs; train the head again"),
        ({"taps": "x"}, r"config.json.taps: expected .*, found 'x'; name a directory that"),
        ({"draft_vocab_size": 7}, r"vocabulary of shape \[24\], and config.json asks for \[7\]; train the head again"),
    ],
)
def test_a_changed_configuration_is_refused(change: dict[str, object], message: str, tmp_path: Path) -> None:
    save_head(head("eagle3"), tmp_path / "h", {})
    file = tmp_path / "h" / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(HeadError, match=message):
        load_head(tmp_path / "h")


def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    save_head(head("eagle3"), tmp_path / "h", {})
    file = tmp_path / "h" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(HeadError, match=r"model.safetensors cannot be read: .*; train the head again"):
        load_head(tmp_path / "h")


def test_a_token_that_the_model_does_not_have_is_refused(tmp_path: Path) -> None:
    save_head(head("eagle3"), tmp_path / "h", {})
    file = tmp_path / "h" / "model.safetensors"
    tensors = load_file(file)
    tensors["vocabulary"][-1] = VOCABULARY
    save_file(tensors, file)
    with pytest.raises(
        HeadError, match=f"tokens outside 0..{VOCABULARY - 1}, such as {VOCABULARY}; train the head again"
    ):
        load_head(tmp_path / "h")


def test_the_digest_tells_one_table_from_another() -> None:
    table = torch.randn(5, 3)
    other = table.clone()
    other[4, 2] += 1e-3
    assert digest(table) == digest(table.clone()) != digest(other)


def test_all_files_of_a_head_may_be_read_by_those_who_may_read_its_directory(tmp_path: Path) -> None:
    save_head(head("eagle3"), tmp_path / "head", {"card.json": "{}"})
    rights = (tmp_path / "head").stat().st_mode & 0o444
    assert {file.stat().st_mode & 0o444 for file in (tmp_path / "head").iterdir()} == {rights}
