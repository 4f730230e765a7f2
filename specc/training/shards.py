"""Files of recorded text: tokens beside the states of the model, a few thousand tokens a file.

n  tokens of a shard      T  taps      D  the model's hidden size
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from specc.runtime.errors import HeadError, first_line

PARTIAL = ".partial"
TYPES = {
    "I32": torch.int32,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
}  # safetensors' names of the types that are used


@dataclass(frozen=True, kw_only=True)
class Recording:
    """A recorded text: a prompt and the model's answer.

    Attributes:
        tokens: [n] int64.
        states: [n, T * D]: the states after the taps.
        final: [n, D]: what the model's last product reads.
        prompt: the number of tokens of the prompt.
    """

    tokens: Tensor
    states: Tensor
    final: Tensor
    prompt: int

    def __len__(self) -> int:
        return len(self.tokens)


def write_shard(file: Path, recordings: Sequence[Recording], notes: dict[str, Any]) -> None:
    """Write recordings to one file. The file appears whole or not at all.

    Args:
        file: the shard.
        recordings: what it holds.
        notes: facts of the recording, by which a later run knows whether the file is of use to it.

    Raises:
        HeadError: the file cannot be written.
    """
    tensors = {
        "tokens": torch.cat([recording.tokens for recording in recordings]).int(),
        "states": torch.cat([recording.states for recording in recordings]),
        "final": torch.cat([recording.final for recording in recordings]),
        "lengths": torch.tensor([len(recording) for recording in recordings], dtype=torch.int32),
        "prompts": torch.tensor([recording.prompt for recording in recordings], dtype=torch.int32),
    }
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
    if not file.is_file():
        return None
    try:
        with safe_open(file, "pt") as opened:
            notes: dict[str, Any] = json.loads((opened.metadata() or {})["specc"])
            return notes
    except (SafetensorError, KeyError, ValueError) as e:
        raise HeadError(f"{file} is damaged ({e}); delete it, and it is recorded again") from e


def _mapped(file: Path) -> dict[str, Tensor]:
    """Map the tensors of a file. `safe_open` would copy them, and the text of a training can be larger than memory."""
    with file.open("rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
        header = json.loads(opened.read(size))
    header.pop("__metadata__", None)
    data = torch.from_file(str(file), shared=False, size=file.stat().st_size, dtype=torch.uint8)[8 + size :]
    tensors = {}
    for name, entry in header.items():
        begin, end = entry["data_offsets"]
        tensors[name] = data[begin:end].view(TYPES[entry["dtype"]]).view(entry["shape"])
    return tensors


def read_shard(file: Path) -> Iterator[Recording]:
    """Yield the recordings of a shard. Their tensors are views of the mapped file, so that they take no memory."""
    tensors = _mapped(file)
    lengths = tensors["lengths"].tolist()
    parts = [torch.split(tensors[name], lengths) for name in ("tokens", "states", "final")]
    for tokens, states, final, prompt in zip(*parts, tensors["prompts"].tolist(), strict=True):
        yield Recording(tokens=tokens.long(), states=states, final=final, prompt=prompt)
