"""The tensors of a weights file as bytes, mapped: their types are the engines' business."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path

import numpy as np


@cache
def tensors(file: Path) -> dict[str, np.ndarray]:
    """Each tensor's bytes, by name."""
    data = np.memmap(file, np.uint8, "r")
    size = int.from_bytes(data[:8].tobytes(), "little")
    header = json.loads(data[8 : 8 + size].tobytes())
    header.pop("__metadata__", None)
    return {n: data[8 + size + a : 8 + size + b] for n, t in header.items() for a, b in [t["data_offsets"]]}
