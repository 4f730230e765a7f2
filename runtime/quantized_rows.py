"""A copy of a cache's older rows in 4 or 8 bits (QuantSpec, Tiwari et al. 2025, arXiv:2502.10424).

Rows are rounded in groups. A number is its code, 0 to 15, times a scale, plus the least number of what it was rounded
with: of keys a channel within the group, of values a row. Drafts read that. A second code of 4 bits says where the
number lies between its neighbours. Both codes together are a number of 8 bits, 16 * code + lower: less 7.5, and times
a sixteenth of the scale, it is what a target reads. The newest rows have no codes: one group of them at least, and
less than two. So rows that a step may still reject are never rounded.

T  tensors of one shape      H  heads      D  size of a head      C  capacity      G  rows of a group
R  rows that can have codes, the whole groups in C      A, B  G, 1 of values and 1, D of keys
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

LARGEST_CODE = 15
SMALLEST_SCALE = 1e-12  # of numbers that are all equal
PARTS = ("codes", "scales", "least")
LOWER = "lower"  # The part that only readers of 8 bits have.
LOWER_STEPS = 16  # They divide a scale.
LOWER_MIDDLE = 7.5  # The lower half of a number that its code says exactly.
COUNT = "quantized_rows"  # The input of an engine that says how many rows have codes.


def part_shapes(
    kind: str, heads: int, capacity: int, size: int, group: int, bits: int = 4
) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return the type and the shape of each part of a layer's copy, by its name.

    Args:
        kind: "key" or "value".
        heads: heads of the layer's rows.
        capacity: rows of the cache.
        size: numbers of a head, an even number. Byte i of a code holds number i, and above it number i + size / 2.
        group: rows of a group.
        bits: those that a reader reads, 4 or 8.
    """
    groups = capacity // group
    scales = (1, heads, groups, 1, size) if kind == "key" else (1, heads, groups, group, 1)
    codes = (1, heads, groups * group, size // 2)
    parts = {"codes": ("uint8", codes), "scales": ("float32", scales), "least": ("float32", scales)}
    return parts | ({LOWER: ("uint8", codes)} if bits == 8 else {})


class QuantizedRows:
    """The codes of the rows of one cache, for tensors of one shape. They follow the rows when they are asked to.

    Attributes:
        count: how many rows have codes.
        values: by the name of a tensor, such as 0.key, its parts as engines read them.
    """

    def __init__(self, names: list[str], rows: np.ndarray, group: int) -> None:
        """Make a copy that has no codes yet.

        Args:
            names: the names of the tensors, a layer's keys before its values.
            rows: their rows [T, H, C, D], in the order of the names. The copy reads them whenever it follows.
            group: rows of a group.
        """
        self.count, self._group, self._rows = 0, group, rows
        _, heads, capacity, size = rows.shape
        self.values: dict[str, Mapping[str, np.ndarray]] = {}
        self._parts: list[tuple[int, dict[str, np.ndarray]]] = []  # For keys and for values, all layers at once.
        self._names = names
        for start, kind in enumerate(("key", "value")):
            own = names[start::2]
            shapes = part_shapes(kind, heads, capacity, size, group)
            arrays = {part: np.zeros((len(own), *shape[1:]), dtype) for part, (dtype, shape) in shapes.items()}
            self._parts.append((2 if kind == "key" else 3, arrays))
            for i, name in enumerate(own):
                self.values[name] = {part: array[i : i + 1] for part, array in arrays.items()}

    def keep_lower(self) -> None:
        """Keep the lower halves too, for readers of 8 bits. Rows that have codes get them when the copy follows."""
        if LOWER in self._parts[0][1]:
            return
        self.count = 0
        for start, (_, arrays) in enumerate(self._parts):
            array = arrays[LOWER] = np.zeros_like(arrays["codes"])
            for i, name in enumerate(self._names[start::2]):
                self.values[name] = {**self.values[name], LOWER: array[i : i + 1]}

    def rewind(self, rows: int) -> None:
        """Forget the codes of rows that are not among the first `rows` ones, or too new for codes."""
        self.count = min(self.count, self._due(rows))

    def follow(self, rows: int) -> int:
        """Round the rows that are due, and return how many have codes.

        Args:
            rows: how many rows are committed.
        """
        due, group = self._due(rows), self._group
        if self.count < due:
            old, groups = slice(self.count, due), slice(self.count // group, due // group)
            for start, (axis, arrays) in enumerate(self._parts):
                exact = self._rows[start::2, :, old]
                codes, scales, least = rounded(exact, group, axis)
                arrays["codes"][:, :, old] = codes
                arrays["scales"][:, :, groups], arrays["least"][:, :, groups] = scales, least
                if LOWER in arrays:
                    arrays[LOWER][:, :, old] = lower_halves(exact, codes, scales, least)
            self.count = due
        return self.count

    def _due(self, rows: int) -> int:
        """Return how many of `rows` committed rows have codes: whole groups, but for one group of the newest."""
        return max(0, rows // self._group - 1) * self._group


def rounded(rows: np.ndarray, group: int, axis: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Round rows to 4 bits.

    Args:
        rows: some whole groups of rows, [T, H, n, D].
        group: rows of a group.
        axis: 2 rounds the numbers of a channel within a group alike, 3 those of a row.

    Returns:
        The codes [T, H, n, D / 2] of two numbers in a byte, the scales [T, H, n / G, A, B] and the least numbers.
    """
    tensors, heads, count, size = rows.shape
    grouped = rows.reshape(tensors, heads, count // group, group, size)
    least, largest = grouped.min(axis + 1, keepdims=True), grouped.max(axis + 1, keepdims=True)
    scales = np.maximum((largest - least) / LARGEST_CODE, SMALLEST_SCALE)
    codes = np.rint((grouped - least) / scales).astype(np.uint8).reshape(rows.shape)
    return _packed(codes), scales, least


def lower_halves(rows: np.ndarray, codes: np.ndarray, scales: np.ndarray, least: np.ndarray) -> np.ndarray:
    """Return the lower halves [T, H, n, D / 2] of numbers that were rounded, two of them in a byte.

    Args:
        rows: some whole groups of rows, [T, H, n, D].
        codes: what `rounded` returned for them.
        scales: what it returned.
        least: what it returned.
    """
    groups = scales.shape[2]
    numbers = np.concatenate([codes & LARGEST_CODE, codes >> 4], -1).reshape(*rows.shape[:2], groups, -1, rows.shape[3])
    wrong = (rows.reshape(numbers.shape) - least) / scales - numbers  # A half at most, in either direction.
    lower = np.rint(wrong * LOWER_STEPS + LOWER_MIDDLE).clip(0, LARGEST_CODE)
    return _packed(lower.astype(np.uint8).reshape(rows.shape))


def _packed(codes: np.ndarray) -> np.ndarray:
    """Put two codes into a byte: number i into the low bits, and number i + D / 2 above it."""
    half = codes.shape[-1] // 2
    packed: np.ndarray = codes[..., :half] | codes[..., half:] << 4
    return packed
