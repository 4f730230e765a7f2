"""The tensors of a safetensors file, mapped into memory as bytes. What the types mean is the engines' business."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..errors import BundleError, first_line


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


def read_header(file: Path) -> tuple[dict[str, dict[str, Any]], int]:
    """Return the header of a safetensors file (github.com/huggingface/safetensors), and at which byte its data begins.

    A tensor of several names has an entry for each: the file's metadata has further names. Each entry has `dtype`,
    `shape` and `data_offsets`, and its data lie inside the file.

    Raises:
        BundleError: the file is not safetensors. A stranger may have written it.
    """
    size = file.stat().st_size
    try:
        with file.open("rb") as f:
            start = 8 + int.from_bytes(f.read(8), "little")
            if start > size:
                raise ValueError("it ends in the header")
            header = json.loads(f.read(start - 8))
        names = header.pop("__metadata__", {})
        for name, entry in header.items():
            if not _is_entry(entry, size - start):
                raise ValueError(f"tensor {name!r} has no type, no shape, or no place inside the file")
        return header | {name: header[other] for name, other in names.items() if other in header}, start
    except (ValueError, TypeError, AttributeError, RecursionError) as e:
        raise BundleError(f"{file} is not safetensors ({first_line(e)}); compile the bundle again") from e


def _is_entry(entry: Any, size: int) -> bool:
    """Tell whether an entry of a header describes a tensor whose data lie in `size` bytes."""
    match entry:
        case {"dtype": str(), "shape": [*shape], "data_offsets": [int(start), int(end)]}:
            return 0 <= start <= end <= size and all(type(length) is int and length >= 0 for length in shape)
    return False


def tensors(file: Path) -> dict[str, Stored]:
    """Map a safetensors file and return each tensor by name.

    Pages are read when they are used, and are never written back.

    Raises:
        BundleError: the file is not safetensors.
    """
    header, start = read_header(file)
    data = np.memmap(file, np.uint8, "c")
    mapped: dict[int, Stored] = {}  # By entry, since a tensor of several names is one.
    for entry in header.values():
        first, end = (start + offset for offset in entry["data_offsets"])
        mapped.setdefault(id(entry), Stored(entry["dtype"], tuple(entry["shape"]), data[first:end]))
    return {name: mapped[id(entry)] for name, entry in header.items()}
