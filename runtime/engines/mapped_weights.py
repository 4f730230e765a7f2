"""The tensors of a weights file, mapped, as bytes: what their types mean is the engines' business."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Stored(NamedTuple):
    dtype: str  # as the file says it: F32, F16, BF16, I64, BOOL
    shape: tuple[int, ...]
    data: np.ndarray


def tensors(file: Path) -> dict[str, Stored]:
    """Each tensor by name. Pages are read when they are used, and are never written back."""
    data = np.memmap(file, np.uint8, "c")
    size = 8 + int.from_bytes(data[:8].tobytes(), "little")
    header = json.loads(data[8:size].tobytes())
    header.pop("__metadata__", None)
    return {
        name: Stored(told["dtype"], tuple(told["shape"]), data[size + start : size + end])
        for name, told in header.items()
        for start, end in [told["data_offsets"]]
    }
