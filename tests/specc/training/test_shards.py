"""Shards of recorded text: they appear whole, their states are read when asked for, and a damaged one is named."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_head import SIZE, VOCABULARY, recordings
from torch import Tensor

from specc.runtime.errors import HeadError
from specc.training import shards
from specc.training.shards import Place, Sizes, keep_on_gpu, read_notes, read_shard, write_shard

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


SIZES = Sizes(VOCABULARY, 3 * SIZE, SIZE)
FAULTS: dict[str, Callable[[dict[str, Tensor]], object]] = {
    "tokens outside": lambda tensors: tensors["tokens"].__setitem__(3, VOCABULARY),
    "tokens outside 0": lambda tensors: tensors["tokens"].__setitem__(3, -1),
    "lengths do not fit": lambda tensors: tensors["lengths"].__setitem__(0, 21),
    "'states' is missing": lambda tensors: tensors.pop("states"),
    "'tokens' is missing": lambda tensors: tensors.pop("tokens"),
    "'F16'": lambda tensors: tensors.update(states=tensors["states"].half()),
    "tokens has numbers of the type": lambda tensors: tensors.update(tokens=tensors["tokens"].float()),
    "final has numbers of the type": lambda tensors: tensors.update(final=tensors["final"].int()),
    "impossible length": lambda tensors: tensors["prompts"].__setitem__(0, 99),
    "not as wide": lambda tensors: tensors.update(states=tensors["states"][:, 1:].contiguous()),
    "as wide": lambda tensors: tensors.update(final=tensors["final"][:, 1:].contiguous()),
    "lengths do not": lambda tensors: tensors.update(final=tensors["final"][1:].contiguous()),
    "is no|list index|tuple index": lambda tensors: tensors.update(tokens=torch.tensor(3).int()),
}


@pytest.mark.parametrize("reason", FAULTS)
def test_an_altered_shard_is_damaged_and_the_remedy_is_to_delete_it(reason: str, tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    write_shard(file, recordings(3), {})
    assert len(list(read_shard(file, SIZES))) == 3  # Before the file is damaged, it is read.
    tensors = load_file(file)
    FAULTS[reason](tensors)
    save_file(tensors, file)
    with pytest.raises(HeadError, match=rf"a.safetensors is damaged \(.*({reason}).*\); delete it, and it is recorded"):
        list(read_shard(file, SIZES))


def test_a_shard_with_states_that_are_not_finite_is_damaged_when_they_are_read(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    write_shard(file, recordings(2), {})
    tensors = load_file(file)
    tensors["final"][-1] = torch.nan
    save_file(tensors, file)
    good, bad = read_shard(file)
    assert len(good.final) == len(good)
    with pytest.raises(HeadError, match=r"a.safetensors is damaged .it has states that are not finite numbers"):
        _ = bad.final


def test_a_model_whose_states_are_not_finite_is_not_recorded(tmp_path: Path) -> None:
    texts = recordings(1)
    texts[0].states[0] = torch.inf
    with pytest.raises(HeadError, match="the model's states are not finite numbers; give a model"):
        write_shard(tmp_path / "a.safetensors", texts, {})
    assert not list(tmp_path.iterdir())


def test_a_shard_that_ends_before_its_states_is_damaged(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    write_shard(file, recordings(2), {})
    texts = list(read_shard(file))
    file.write_bytes(file.read_bytes()[:-5000])
    with pytest.raises(HeadError, match=r"a.safetensors is damaged \(it is too short\)"):
        _ = [(text.states, text.final) for text in texts]


def test_a_folder_in_the_place_of_a_shard_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").mkdir()
    with pytest.raises(HeadError, match=r"a.safetensors is damaged \(it is no file\); delete it"):
        read_notes(tmp_path / "a.safetensors")
