"""The operators over rows of a cache that passes put into graphs, each with its meaning in torch.

G  heads of keys and values      N  slots      C  capacity of the cache      D  size of a head
R  rows that can have codes, the whole groups in C
"""

from __future__ import annotations

import torch
from torch import Tensor

from specc.runtime.quantized_rows import LOWER_MIDDLE, LOWER_STEPS

from .operators import attend


@torch.library.custom_op("specc::dequantized_rows", mutates_args=())
def dequantized_rows(
    past: Tensor, codes: Tensor, scales: Tensor, least: Tensor, quantized_rows: Tensor, lower: Tensor | None = None
) -> Tensor:
    """Return a cache with the first rows replaced by what their codes say; see runtime/quantized_rows.py.

    Args:
        past: [1, G, C, D] float: the cache.
        codes: [1, G, R, D / 2] uint8: two numbers in a byte, number i in the low bits and number i + D / 2 above it.
        scales: [1, G, groups, 1, D] or [1, G, groups, rows of a group, 1] float.
        least: As `scales`; added to the codes times the scales.
        quantized_rows: [1] int64: the number of rows that have codes.
        lower: As `codes`: the lower halves of numbers of 8 bits, or None for numbers of 4 bits.

    Returns:
        [1, G, C, D] float.
    """
    count, (_, heads, groups, *_), size = int(quantized_rows), scales.shape, past.shape[3]
    numbers = _unpacked(codes).to(past.dtype)
    if lower is not None:
        numbers = numbers + (_unpacked(lower).to(past.dtype) - LOWER_MIDDLE) / LOWER_STEPS
    rows = (numbers.reshape(1, heads, groups, -1, size) * scales + least).flatten(2, 3)
    return torch.cat([rows[:, :, :count], past[:, :, count:]], 2)


@dequantized_rows.register_fake
def _(
    past: Tensor, codes: Tensor, scales: Tensor, least: Tensor, quantized_rows: Tensor, lower: Tensor | None = None
) -> Tensor:
    return torch.empty_like(past)


def _unpacked(codes: Tensor) -> Tensor:
    """Return the two numbers of each byte, all low ones before all others in a row."""
    return torch.cat([codes & 15, codes >> 4], -1)


@torch.library.custom_op("specc::write_rows", mutates_args=())
def write_rows(past: Tensor, new: Tensor, past_len: Tensor) -> Tensor:
    """Return a cache [1, G, C, D] with `new` [1, G, N, D] in the rows from `past_len` [1] int64 on."""
    rows, first = past.clone(), int(past_len)
    rows[:, :, first : first + new.shape[2]] = new
    return rows


@write_rows.register_fake
def _(past: Tensor, new: Tensor, past_len: Tensor) -> Tensor:
    return torch.empty_like(past)


@torch.library.custom_op("specc::rows_attention", mutates_args=())
def rows_attention(
    query: Tensor, past_key: Tensor, past_value: Tensor, rows: Tensor, positions: Tensor, scale: float
) -> Tensor:
    """Attend to rows of a cache that other blocks write. A slot sees the rows before its position, and one at least.

    Args:
        query: [1, H, N, D] float.
        past_key: [1, G, C, D] float: the cache; each head serves H / G heads of queries.
        past_value: [1, G, C, D] float.
        rows: [1] int64: the number of rows in use. No slot sees one behind them, but for the first.
        positions: [1, N] int64: the slots' positions.
        scale: The factor of the scores.

    Returns:
        [1, H, N, D] float.
    """
    limits = positions[0].clamp(max=int(rows)).clamp(min=1)
    visible = torch.arange(past_key.shape[2]) < limits[:, None]
    return attend(query, past_key, past_value, visible, None, scale, 0.0)


@rows_attention.register_fake
def _(query: Tensor, past_key: Tensor, past_value: Tensor, rows: Tensor, positions: Tensor, scale: float) -> Tensor:
    return torch.empty_like(query)
