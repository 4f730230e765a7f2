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

BLOCK = 32  # weights that share a scale, in most formats
SMALL_BLOCK = 16  # of Q6_K


class Rows(NamedTuple):
    """Rows of a matrix in blocks. A weight is scale * number + offset, in exact arithmetic.

    Attributes:
        numbers: [rows, K] uint8.
        scales: [rows, K / block] float32, which holds every scale of the formats.
        offsets: [rows, K / block] float32; None if each is the scale times -2 ** (bits - 1).
        bits: of a number, 4 or 8. Numbers of 5 and 6 bits stand in 8.
        block: weights that share a scale.
    """

    numbers: np.ndarray
    scales: np.ndarray
    offsets: np.ndarray | None
    bits: int
    block: int = BLOCK


def _halves(data: np.ndarray, at: int) -> np.ndarray:
    """Read a number of fp16 at a place of each block [.., bytes]."""
    values: np.ndarray = np.ascontiguousarray(data[..., at : at + 2]).view(np.float16)[..., 0].astype(np.float32)
    return values


def _nibbles(packed: np.ndarray) -> np.ndarray:
    """Unpack two numbers a byte: the low halves of all bytes, then the high ones, along the last axis."""
    return np.concatenate([packed & 15, packed >> 4], -1)


def _fifth_bits(words: np.ndarray) -> np.ndarray:
    """Return bits 0 to 31 of words of 4 bytes [.., 4], each as 0 or 16, along the last axis."""
    bits: np.ndarray = np.unpackbits(np.ascontiguousarray(words), axis=-1, bitorder="little") << 4
    return bits


def _q4_0(data: np.ndarray) -> Rows:
    blocks = data.reshape(len(data), -1, 18)
    return Rows(_nibbles(blocks[..., 2:]).reshape(len(data), -1), _halves(blocks, 0), None, 4)


def _q4_1(data: np.ndarray) -> Rows:
    blocks = data.reshape(len(data), -1, 20)
    return Rows(_nibbles(blocks[..., 4:]).reshape(len(data), -1), _halves(blocks, 0), _halves(blocks, 2), 4)


def _q8_0(data: np.ndarray) -> Rows:
    blocks = data.reshape(len(data), -1, 34)
    return Rows((blocks[..., 2:] ^ 128).reshape(len(data), -1), _halves(blocks, 0), None, 8)


def _q5_0(data: np.ndarray) -> Rows:
    """Unpack numbers from -16 to 15, and move them to 112 and above: with 8 bits zero is 128."""
    blocks = data.reshape(len(data), -1, 22)
    numbers = _nibbles(blocks[..., 6:]) + _fifth_bits(blocks[..., 2:6]) + np.uint8(128 - 16)
    return Rows(numbers.reshape(len(data), -1), _halves(blocks, 0), None, 8)


def _q5_1(data: np.ndarray) -> Rows:
    blocks = data.reshape(len(data), -1, 24)
    numbers = _nibbles(blocks[..., 8:]) + _fifth_bits(blocks[..., 4:8])
    return Rows(numbers.reshape(len(data), -1), _halves(blocks, 0), _halves(blocks, 2), 8)


def _scales_and_minima(blocks: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Unpack what Q4_K and Q5_K begin with: two numbers of fp16, and eight scales and eight minima of 6 bits.

    Returns:
        The scales and the offsets of the eight parts of each block, [rows, 8 * blocks] each.
    """
    low, minima, high = (blocks[..., start : start + 4] for start in (4, 8, 12))
    scales = np.concatenate([low & 63, high & 15 | low >> 2 & 48], -1).astype(np.float32)
    least = np.concatenate([minima & 63, high >> 4 | minima >> 2 & 48], -1).astype(np.float32)
    return (
        (_halves(blocks, 0)[..., None] * scales).reshape(len(blocks), -1),
        (-_halves(blocks, 2)[..., None] * least).reshape(len(blocks), -1),
    )


def _q4_k(data: np.ndarray) -> Rows:
    """Unpack blocks of 256, whose eight parts have a scale and a minimum each."""
    blocks = data.reshape(len(data), -1, 144)
    numbers = _nibbles(blocks[..., 16:].reshape(*blocks.shape[:2], 4, 32))
    return Rows(numbers.reshape(len(data), -1), *_scales_and_minima(blocks), 4)


def _q5_k(data: np.ndarray) -> Rows:
    """Unpack blocks of 256. Bit i of a byte of the fifth bits belongs to part i, of eight parts of 32 numbers."""
    blocks = data.reshape(len(data), -1, 176)
    fifth = np.unpackbits(blocks[..., 16:48, None], axis=-1, bitorder="little").swapaxes(-1, -2) << 4
    numbers = _nibbles(blocks[..., 48:].reshape(*blocks.shape[:2], 4, 32)).reshape(fifth.shape) + fifth
    return Rows(numbers.reshape(len(data), -1), *_scales_and_minima(blocks), 8)


def _q6_k(data: np.ndarray) -> Rows:
    """Unpack blocks of 256, of numbers from -32 to 31, and move them to 96 and above: with 8 bits zero is 128.

    Sixteen parts have a scale of 8 bits each. A half of a block has 64 bytes of low bits and 32 bytes of high ones.
    """
    blocks = data.reshape(len(data), -1, 210)
    low = _nibbles(blocks[..., :128].reshape(*blocks.shape[:2], 2, 64))
    high = blocks[..., 128:192].reshape(*blocks.shape[:2], 2, 1, 32) >> np.array([[0], [2], [4], [6]], np.uint8) & 3
    numbers = low + (high << 4).reshape(low.shape) + np.uint8(128 - 32)
    scales = _halves(blocks, 208)[..., None] * blocks[..., 192:208].view(np.int8).astype(np.float32)
    return Rows(numbers.reshape(len(data), -1), scales.reshape(len(data), -1), None, 8, SMALL_BLOCK)


UNPACK: dict[str, Callable[[np.ndarray], Rows]] = {
    "Q4_0": _q4_0,
    "Q4_1": _q4_1,
    "Q5_0": _q5_0,
    "Q5_1": _q5_1,
    "Q8_0": _q8_0,
    "Q4_K": _q4_k,
    "Q5_K": _q5_k,
    "Q6_K": _q6_k,
}
BITS_OF = {"Q4_0": 4, "Q4_1": 4, "Q5_0": 8, "Q5_1": 8, "Q8_0": 8, "Q4_K": 4, "Q5_K": 8, "Q6_K": 8}


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
    """Join parts and put their rows in order. Parts of different formats all get offsets, and the smallest blocks."""
    bits, block = max(part.bits for part in parts), min(part.block for part in parts)
    parts = [_in_blocks(part, block) for part in parts]
    has_offsets = any(part.offsets is not None or part.bits != bits for part in parts)
    offsets = None
    if has_offsets:
        offsets = np.concatenate(
            [part.scales * -(2.0 ** (part.bits - 1)) if part.offsets is None else part.offsets for part in parts]
        )[order].astype(np.float32)
    numbers, scales = (np.concatenate([part[i] for part in parts])[order] for i in (0, 1))
    return Rows(numbers, scales, offsets, bits, block)


def _in_blocks(rows: Rows, block: int) -> Rows:
    """Cut blocks into smaller ones, each with the scale and the offset of the whole."""
    count = rows.block // block
    scales, offsets = (None if part is None else np.repeat(part, count, -1) for part in (rows.scales, rows.offsets))
    assert scales is not None
    return Rows(rows.numbers, scales, offsets, rows.bits, block)


def _digest(row: np.ndarray) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(row, np.float32).tobytes(), digest_size=16).digest()
