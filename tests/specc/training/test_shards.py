"""Shards of recorded text: they appear whole, their states are read when asked for, and a damaged one is named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_head import recordings

from specc.runtime.errors import HeadError
from specc.training.shards import Place, read_notes, read_shard, write_shard

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
