"""The blocks of GGUF files as they stand there: numbers of few bits, scales and offsets, for products that keep them.

The layouts are those of ggml (https://github.com/ggml-org/ggml, ggml-common.h). A row of a matrix is found by its
widened values, so no names of tensors are mapped, and rows that transformers puts in another order keep their blocks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

BLOCK = 32  # weights that share a scale


class Rows(NamedTuple):
    """Rows of a matrix in blocks. A weight is scale * number + offset, in exact arithmetic.

    Attributes:
        numbers: [rows, K] uint8.
        scales: [rows, K / 32] float32, which holds every scale of the formats.
        offsets: [rows, K / 32] float32; None if each is the scale times -2 ** (bits - 1).
        bits: of a number, 4 or 8.
    """

    numbers: np.ndarray
    scales: np.ndarray
    offsets: np.ndarray | None
    bits: int


def _halves(data: np.ndarray, at: int) -> np.ndarray:
    """Read a number of fp16 at a place of each block [.., bytes]."""
    values: np.ndarray = np.ascontiguousarray(data[..., at : at + 2]).view(np.float16)[..., 0].astype(np.float32)
    return values


def _nibbles(packed: np.ndarray) -> np.ndarray:
    """Unpack two numbers a byte: the low halves of all bytes, then the high ones, along the last axis."""
    return np.concatenate([packed & 15, packed >> 4], -1)


def _q4_0(data: np.ndarray) -> Rows:
    blocks = data.reshape(len(data), -1, 18)
    return Rows(_nibbles(blocks[..., 2:]).reshape(len(data), -1), _halves(blocks, 0), None, 4)


def _q4_1(data: np.ndarray) -> Rows:
    blocks = data.reshape(len(data), -1, 20)
    return Rows(_nibbles(blocks[..., 4:]).reshape(len(data), -1), _halves(blocks, 0), _halves(blocks, 2), 4)


def _q8_0(data: np.ndarray) -> Rows:
    blocks = data.reshape(len(data), -1, 34)
    return Rows((blocks[..., 2:] ^ 128).reshape(len(data), -1), _halves(blocks, 0), None, 8)


def _q4_k(data: np.ndarray) -> Rows:
    """Unpack blocks of 256, whose eight parts have a scale and a minimum of 6 bits each."""
    blocks = data.reshape(len(data), -1, 144)
    low, minima, high = (blocks[..., start : start + 4] for start in (4, 8, 12))
    scales = np.concatenate([low & 63, high & 15 | low >> 2 & 48], -1).astype(np.float32)
    least = np.concatenate([minima & 63, high >> 4 | minima >> 2 & 48], -1).astype(np.float32)
    numbers = _nibbles(blocks[..., 16:].reshape(*blocks.shape[:2], 4, 32))
    return Rows(
        numbers.reshape(len(data), -1),
        (_halves(blocks, 0)[..., None] * scales).reshape(len(data), -1),
        (-_halves(blocks, 2)[..., None] * least).reshape(len(data), -1),
        4,
    )


UNPACK: dict[str, Callable[[np.ndarray], Rows]] = {"Q4_0": _q4_0, "Q4_1": _q4_1, "Q8_0": _q8_0, "Q4_K": _q4_k}
BITS_OF = {"Q4_0": 4, "Q4_1": 4, "Q8_0": 8, "Q4_K": 4}


class BlockIndex:
    """An index of the rows of a GGUF checkpoint that stand in blocks, by their values."""

    def __init__(self, parts: Sequence[Path]) -> None:
        import gguf

        self._tensors: list[tuple[str, np.ndarray]] = []
        self._places: dict[bytes, tuple[int, int]] = {}
        for part in parts:
            for tensor in gguf.GGUFReader(part).tensors:
                if tensor.tensor_type.name in UNPACK:
                    self._add(tensor, gguf.quants.dequantize(tensor.data, tensor.tensor_type))

    def _add(self, tensor: Any, values: np.ndarray) -> None:
        number = len(self._tensors)
        data = np.asarray(tensor.data)
        self._tensors.append((tensor.tensor_type.name, data.reshape(-1, data.shape[-1])))
        for row, value in enumerate(values.reshape(-1, values.shape[-1])):
            self._places.setdefault(_digest(value), (number, row))

    def find(self, matrix_NxK: np.ndarray) -> Rows | None:
        """Return the blocks of a matrix in fp32, or None if one of its rows is not in the file."""
        places = [self._places.get(_digest(row)) for row in matrix_NxK]
        if not places or None in places:
            return None
        tensors, rows = np.array(places).T
        numbers = np.unique(tensors)
        parts = [UNPACK[self._tensors[n][0]](self._tensors[n][1][rows[tensors == n]]) for n in numbers]
        order = np.argsort(np.concatenate([np.flatnonzero(tensors == n) for n in numbers]))
        return _in_order(parts, order)


def _in_order(parts: Sequence[Rows], order: np.ndarray) -> Rows:
    """Join parts and put their rows in order. Parts of different formats all get offsets."""
    bits = max(part.bits for part in parts)
    has_offsets = any(part.offsets is not None or part.bits != bits for part in parts)
    offsets = None
    if has_offsets:
        offsets = np.concatenate(
            [part.scales * -(2.0 ** (part.bits - 1)) if part.offsets is None else part.offsets for part in parts]
        )[order].astype(np.float32)
    numbers, scales = (np.concatenate([part[i] for part in parts])[order] for i in (0, 1))
    return Rows(numbers, scales, offsets, bits)


def _digest(row: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(row, np.float32).tobytes(), digest_size=16).digest()
