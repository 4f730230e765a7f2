"""The tensors of a safetensors file, mapped into memory as bytes. What the types mean is the engines' business."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Stored(NamedTuple):
    """A tensor of a weights file.

    Attributes:
        dtype: as the file writes it: F32, F16, BF16, I64, I32, BOOL.
        shape: of the tensor.
        data: its bytes, in a flat array of uint8.
    """

    dtype: str
    shape: tuple[int, ...]
    data: np.ndarray


def tensors(file: Path) -> dict[str, Stored]:
    """Map a file (github.com/huggingface/safetensors) and return each tensor by name.

    Pages are read when they are used, and are never written back. The file's metadata has further names of tensors.
    """
    data = np.memmap(file, np.uint8, "c")
    size = 8 + int.from_bytes(data[:8].tobytes(), "little")
    header = json.loads(data[8:size].tobytes())
    names = header.pop("__metadata__", {})
    mapped = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        mapped[name] = Stored(entry["dtype"], tuple(entry["shape"]), data[size + start : size + end])
    return mapped | {name: mapped[other] for name, other in names.items() if other in mapped}
