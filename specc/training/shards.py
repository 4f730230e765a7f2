"""Files of recorded text: tokens beside the states of the model, a few thousand tokens a file.

n  tokens of a shard      T  taps      D  the model's hidden size
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from specc.runtime.errors import HeadError, first_line
from specc.training.device import current_device, free_memory, on_gpu
from specc.training.finite import are_finite

PARTIAL = ".partial"
KEPT = 0.6  # of the free memory of a GPU, which recorded states may take
TYPES = {
    "I32": torch.int32,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
}  # safetensors' names of the types that are used


INTEGERS, STATES = ("tokens", "lengths", "prompts"), ("states", "final")  # names in a shard


class Sizes(NamedTuple):
    """Sizes of a model that is recorded.

    Attributes:
        vocab_size: its tokens.
        columns: the numbers of the states beside each token, T * D.
        hidden_size: the numbers of what the last product reads, D.
    """

    vocab_size: int
    columns: int
    hidden_size: int


class Place(NamedTuple):
    """A place of rows in a file.

    Attributes:
        file: the file.
        offset: the bytes before the rows.
        shape: the rows, and the numbers of each.
        kind: the type of the numbers.
    """

    file: Path
    offset: int
    shape: tuple[int, int]
    kind: torch.dtype

    @property
    def bytes(self) -> int:
        """The size of the rows."""
        return self.shape[0] * self.shape[1] * self.kind.itemsize

    def read(self) -> Tensor:
        """Read the rows onto the device in use.

        Raises:
            HeadError: the file ends before them, or a number is not finite.
        """
        data = np.fromfile(self.file, np.uint8, self.bytes, offset=self.offset)
        if len(data) < self.bytes:
            raise damaged(self.file, "it is too short")
        rows = torch.from_numpy(data).view(self.kind).view(self.shape).to(current_device())
        if not are_finite([rows]):
            raise damaged(self.file, "it has states that are not finite numbers")
        return rows


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A recorded text: a prompt and the model's answer.

    The text of a training can be larger than memory. So states that are in a file are read each time they are asked
    for. A mapped file would do too, but its pages count as the memory of the process.

    Attributes:
        tokens: [n] int64.
        stored_states: see `states`.
        stored_final: see `final`.
        prompt: the number of tokens of the prompt.
    """

    tokens: Tensor
    stored_states: Tensor | Place
    stored_final: Tensor | Place
    prompt: int

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def states(self) -> Tensor:
        """The states after the taps, [n, T * D]."""
        return self.stored_states.read() if isinstance(self.stored_states, Place) else self.stored_states

    @property
    def final(self) -> Tensor:
        """Return the states that the model's last product reads, [n, D]."""
        return self.stored_final.read() if isinstance(self.stored_final, Place) else self.stored_final


def keep_on_gpu(recordings: list[Recording]) -> list[Recording]:
    """Read the states of recordings into the memory of the GPU in use, if there is one that has room for all."""
    if not on_gpu():
        return recordings
    stored = [rows for text in recordings for rows in (text.stored_states, text.stored_final)]
    if sum(rows.bytes for rows in stored if isinstance(rows, Place)) > KEPT * free_memory():
        return recordings
    return [replace(text, stored_states=text.states, stored_final=text.final) for text in recordings]


def write_shard(file: Path, recordings: Sequence[Recording], notes: dict[str, Any]) -> None:
    """Write recordings to one file. The file appears whole or not at all.

    Args:
        file: the shard.
        recordings: what it holds.
        notes: facts of the recording, by which a later run knows whether the file is of use to it.

    Raises:
        HeadError: the file cannot be written, or a state is not a finite number.
    """
    tensors = {
        "tokens": torch.cat([recording.tokens for recording in recordings]).int(),
        "states": torch.cat([recording.states for recording in recordings]),
        "final": torch.cat([recording.final for recording in recordings]),
        "lengths": torch.tensor([len(recording) for recording in recordings], dtype=torch.int32),
        "prompts": torch.tensor([recording.prompt for recording in recordings], dtype=torch.int32),
    }
    if not are_finite(tensors.values()):
        raise HeadError("the model's states are not finite numbers; give a model whose weights are finite numbers")
    partial = file.with_name(file.name + PARTIAL)
    try:
        save_file(tensors, partial, metadata={"specc": json.dumps(notes, sort_keys=True)})
        os.replace(partial, file)
    except SafetensorError as e:  # a full disk, among others
        raise HeadError(f"cannot write {file}: {first_line(e)}; free some space, or choose another place") from e
    finally:
        partial.unlink(missing_ok=True)


def read_notes(file: Path) -> dict[str, Any] | None:
    """Return the notes of a shard, or None if the file is not there.

    Raises:
        HeadError: the file is damaged.
    """
    if file.exists() and not file.is_file():
        raise damaged(file, "it is no file")
    if not file.is_file():
        return None
    try:
        with safe_open(file, "pt") as opened:
            notes: dict[str, Any] = json.loads((opened.metadata() or {})["specc"])
            return notes
    except (SafetensorError, KeyError, ValueError, RecursionError) as e:
        raise damaged(file, first_line(e)) from e


def damaged(file: Path, reason: str) -> HeadError:
    """Return the error of a shard that is damaged."""
    return HeadError(f"{file} is damaged ({reason}); delete it, and it is recorded again")


def read_shard(file: Path, sizes: Sizes | None = None) -> Iterator[Recording]:
    """Yield the recordings of a shard. Their states stay in the file until they are asked for.

    Args:
        file: the shard.
        sizes: of the model that was recorded. None leaves them unchecked.

    Raises:
        HeadError: the file is damaged.
    """
    places = _places_of(file)
    tokens, lengths, prompts = (places[name].read()[:, 0].tolist() for name in ("tokens", "lengths", "prompts"))
    if reason := _fault(places, tokens, lengths, prompts, sizes):
        raise damaged(file, reason)
    first = 0
    for length, prompt in zip(lengths, prompts, strict=True):
        yield Recording(
            tokens=torch.tensor(tokens[first : first + length]),
            stored_states=_part(places["states"], first, length),
            stored_final=_part(places["final"], first, length),
            prompt=prompt,
        )
        first += length


def _places_of(file: Path) -> dict[str, Place]:
    """Return where the tensors of a shard are. Raises HeadError if one is missing or of another type."""
    try:
        with safe_open(file, "pt"):  # which checks where each tensor begins and ends
            pass
        with file.open("rb") as opened:
            start = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(start))
        places = {
            name: Place(file, 8 + start + entry["data_offsets"][0], _shape(entry["shape"]), TYPES[entry["dtype"]])
            for name, entry in header.items()
            if name in (*INTEGERS, *STATES)
        }
        for name in (*INTEGERS, *STATES):
            if (places[name].kind == torch.int32) != (name in INTEGERS):
                raise ValueError(f"{name} has numbers of the type {places[name].kind}")
    except SafetensorError as e:
        raise damaged(file, first_line(e)) from e
    except KeyError as e:
        raise damaged(file, f"{e} is missing, or is a type that no recording has") from e
    except (ValueError, IndexError) as e:
        raise damaged(file, first_line(e)) from e
    return places


def _fault(
    places: Mapping[str, Place],
    tokens: Sequence[int],
    lengths: Sequence[int],
    prompts: Sequence[int],
    sizes: Sizes | None,
) -> str:
    """Say what does not fit in a shard; empty if all fits."""
    rows = {sum(lengths), len(tokens), *(places[name].shape[0] for name in STATES)}
    if len(rows) > 1 or len(lengths) != len(prompts):
        return "its lengths do not fit"
    if any(not 0 <= prompt <= length or length < 1 for length, prompt in zip(lengths, prompts, strict=True)):
        return "it has a text of an impossible length"
    if sizes is None:
        return ""
    if tokens and not 0 <= min(tokens) <= max(tokens) < sizes.vocab_size:
        return f"it has tokens outside 0..{sizes.vocab_size - 1}"
    if (places["states"].shape[1], places["final"].shape[1]) != (sizes.columns, sizes.hidden_size):
        return "its states are not as wide as the model's"
    return ""


def _shape(shape: Sequence[int]) -> tuple[int, int]:
    """Return a shape of rows. Numbers in a line are rows of one."""
    return shape[0], shape[1] if len(shape) > 1 else 1


def _part(place: Place, first: int, rows: int) -> Place:
    """Return the place of some of the rows."""
    columns = place.shape[1]
    return place._replace(offset=place.offset + first * columns * place.kind.itemsize, shape=(rows, columns))
