"""Shards of recorded text: they appear whole, their states are read when asked for, and a damaged one is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_head import recordings

from specc.runtime.errors import HeadError
from specc.training import shards
from specc.training.shards import Place, keep_on_gpu, read_notes, read_shard, write_shard

pytestmark = pytest.mark.torch


def test_a_shard_holds_what_was_written(tmp_path: Path) -> None:
    texts = recordings(5)
    write_shard(tmp_path / "a.safetensors", texts, {"seed": 3})
    assert read_notes(tmp_path / "a.safetensors") == {"seed": 3}
    for text, read in zip(texts, read_shard(tmp_path / "a.safetensors"), strict=True):
        assert torch.equal(text.tokens, read.tokens) and text.prompt == read.prompt
        assert torch.equal(text.states, read.states) and torch.equal(text.final, read.final)
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_shard_that_is_not_there_has_no_notes(tmp_path: Path) -> None:
    assert read_notes(tmp_path / "a.safetensors") is None


def test_a_damaged_shard_is_named_with_the_remedy(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(b"x" * 40)
    with pytest.raises(HeadError, match=r"a.safetensors is damaged .*; delete it, and it is recorded again"):
        read_notes(tmp_path / "a.safetensors")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        HeadError, match=r"cannot write .*absent/a.safetensors: .*; free some space, or choose another place"
    ):
        write_shard(tmp_path / "absent" / "a.safetensors", recordings(1), {})


def test_states_are_read_when_they_are_asked_for_and_take_no_memory_before(tmp_path: Path) -> None:
    file = tmp_path / "s.safetensors"
    texts = recordings(3)
    write_shard(file, texts, {})
    read = list(read_shard(file))
    assert all(isinstance(text.stored_states, Place) and isinstance(text.stored_final, Place) for text in read)
    for text in read:
        assert text.states.untyped_storage().nbytes() == text.states.nbytes < file.stat().st_size / 2
    file.unlink()
    with pytest.raises(FileNotFoundError):
        _ = read[0].states
    assert torch.equal(texts[2].tokens, read[2].tokens)


@pytest.mark.parametrize("has_room", [True, False])
def test_states_are_kept_on_a_gpu_that_has_room_for_them(
    tmp_path: Path, has_room: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shard(tmp_path / "shard", recordings(3), {})
    texts = list(read_shard(tmp_path / "shard"))
    assert keep_on_gpu(texts) == texts  # without a GPU they stay in the file
    monkeypatch.setattr(shards, "on_gpu", lambda: True)
    monkeypatch.setattr(shards, "free_memory", lambda: 1 << 30 if has_room else 1 << 10)
    for text, there in zip(texts, keep_on_gpu(texts), strict=True):
        assert isinstance(there.stored_states, torch.Tensor) == has_room
        assert isinstance(there.stored_final, torch.Tensor) == has_room
        torch.testing.assert_close(there.states, text.states, rtol=0, atol=0)
