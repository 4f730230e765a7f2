"""A copy of a cache's older rows in 4 bits, for drafts (QuantSpec, Tiwari et al. 2025, arXiv:2502.10424).

Rows are rounded in groups. A number is its code, 0 to 15, times a scale, plus the least number of what it was rounded
with: of keys a channel within the group, of values a row. The newest rows have no codes: one group of them at least,
and less than two. So rows that a step may still reject are never rounded.

T  tensors of one shape      H  heads      D  size of a head      C  capacity      G  rows of a group
R  rows that can have codes, the whole groups in C      A, B  G, 1 of values and 1, D of keys
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

LARGEST_CODE = 15
SMALLEST_SCALE = 1e-12  # of numbers that are all equal
PARTS = ("codes", "scales", "least")
COUNT = "quantized_rows"  # The input of an engine that says how many rows have codes.


def part_shapes(kind: str, heads: int, capacity: int, size: int, group: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Return the type and the shape of each part of a layer's copy, by its name.

    Args:
        kind: "key" or "value".
        heads: heads of the layer's rows.
        capacity: rows of the cache.
        size: numbers of a head, an even number. Byte i of a code holds number i, and above it number i + size / 2.
        group: rows of a group.
    """
    groups = capacity // group
    scales = (1, heads, groups, 1, size) if kind == "key" else (1, heads, groups, group, 1)
    codes = (1, heads, groups * group, size // 2)
    return {"codes": ("uint8", codes), "scales": ("float32", scales), "least": ("float32", scales)}


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
        self._parts: list[tuple[int, Mapping[str, np.ndarray]]] = []  # For keys and for values, all layers at once.
        for start, kind in enumerate(("key", "value")):
            own = names[start::2]
            shapes = part_shapes(kind, heads, capacity, size, group)
            arrays = {part: np.zeros((len(own), *shape[1:]), dtype) for part, (dtype, shape) in shapes.items()}
            self._parts.append((2 if kind == "key" else 3, arrays))
            for i, name in enumerate(own):
                self.values[name] = {part: array[i : i + 1] for part, array in arrays.items()}

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
                codes, scales, least = rounded(self._rows[start::2, :, old], group, axis)
                arrays["codes"][:, :, old] = codes
                arrays["scales"][:, :, groups], arrays["least"][:, :, groups] = scales, least
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
    return codes[..., : size // 2] | codes[..., size // 2 :] << 4, scales, least
