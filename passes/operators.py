"""The operators that passes put into graphs, each with its meaning in torch: any graph between two passes runs.

H  heads      G  heads of keys and values      D  size of a head
N  slots      C  capacity of the cache         T  span, the rows that the mask governs      R  rotated sizes
"""

from __future__ import annotations

import torch
from torch import Tensor


@torch.library.custom_op("specc::attention", mutates_args=())
def attention(
    query: Tensor, key: Tensor, value: Tensor, sinks: Tensor | None,
    scale: float, window: int, softcap: float, layer: int,
) -> Tensor:  # fmt: skip
    """Causal attention of a whole sequence: [1, H, N, D] from keys and values [1, G, N, D].

    window: a slot sees so many rows, itself included; 0 sees all. softcap: c * tanh(scores / c); 0 is off.
    sinks: [H], a logit that takes its share of the softmax and gives nothing.
    """
    rows = torch.arange(query.shape[2])
    seen = _near(rows[:, None] >= rows, rows, rows, window)
    return _attend(query, key, value, seen, sinks, scale, softcap)


@attention.register_fake
def _(query, key, value, sinks, scale, window, softcap, layer):
    return query.new_empty(*query.shape[:-1], value.shape[-1])


@torch.library.custom_op("specc::cached_attention", mutates_args=())
def cached_attention(
    query: Tensor, key: Tensor, value: Tensor, past_key: Tensor, past_value: Tensor, past_len: Tensor,
    mask: Tensor, positions: Tensor, sinks: Tensor | None, scale: float, window: int, softcap: float, layer: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Attention of N slots over a cache [1, G, C, D] whose first `past_len` [1] rows are in use.

    The slots' rows are written from row `past_len` on; a slot sees all rows but those that `mask` [N, T] hides among
    the last T. positions: [1, N], the slots'; a row's is its number, but where T is N the slots' rows have the slots'.
    Returns the output [1, H, N, D] and the cache with the new rows.
    """
    past, slots = int(past_len), query.shape[2]
    keys, values = past_key.clone(), past_value.clone()
    keys[:, :, past : past + slots] = key
    values[:, :, past : past + slots] = value
    total = past + slots
    seen = torch.cat([torch.ones(slots, total, dtype=torch.bool), mask], 1)[:, -total:]
    rows = torch.arange(total)
    if mask.shape[1] == slots:
        rows[past:] = positions[0]
    seen = _near(seen, positions[0], rows, window)
    return _attend(query, keys[:, :, :total], values[:, :, :total], seen, sinks, scale, softcap), keys, values


@cached_attention.register_fake
def _(query, key, value, past_key, past_value, past_len, mask, positions, sinks, scale, window, softcap, layer):
    return query.new_empty(*query.shape[:-1], value.shape[-1]), torch.empty_like(past_key), torch.empty_like(past_value)


def _near(seen: Tensor, positions: Tensor, rows: Tensor, window: int) -> Tensor:
    """What of `seen` lies in the window: the rows' positions against the slots'."""
    return seen & (positions[:, None] - rows < window) if window else seen


def _attend(
    query: Tensor, key: Tensor, value: Tensor, seen: Tensor, sinks: Tensor | None, scale: float, softcap: float
) -> Tensor:
    groups = query.shape[1] // key.shape[1]
    scores = query @ key.repeat_interleave(groups, 1).transpose(2, 3) * scale
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(~seen, float("-inf"))
    if sinks is not None:
        scores = torch.cat([scores, sinks.view(1, -1, 1, 1).expand(1, -1, query.shape[2], 1)], -1)
    weights = scores.softmax(-1)[..., : key.shape[2]]
    return weights @ value.repeat_interleave(groups, 1)


@torch.library.custom_op("specc::rotary", mutates_args=())
def rotary(x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor, interleaved: bool) -> Tensor:
    """Rotary embedding of the first R sizes of x [1, H, N, D] by tables [positions, R / 2].

    Pairs are (i, i + R / 2), or (2 i, 2 i + 1) where interleaved. positions: [1, N].
    """
    half = cos.shape[1]
    turned, rest = x[..., : 2 * half], x[..., 2 * half :]
    c, s = cos[positions[0]], sin[positions[0]]
    a, b = (turned[..., ::2], turned[..., 1::2]) if interleaved else (turned[..., :half], turned[..., half:])
    pair = (a * c - b * s, b * c + a * s)
    turned = torch.stack(pair, -1).flatten(-2) if interleaved else torch.cat(pair, -1)
    return torch.cat([turned, rest], -1)


@rotary.register_fake
def _(x, cos, sin, positions, interleaved):
    return torch.empty_like(x)


@torch.library.custom_op("specc::rms_norm", mutates_args=())
def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """x / sqrt(mean(x²) + eps) * weight over the last dimension (Zhang & Sennrich 2019, arXiv:1910.07467)."""
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


@rms_norm.register_fake
def _(x, weight, eps):
    return torch.empty_like(x)


@torch.library.custom_op("specc::quantized_linear", mutates_args=())
def quantized_linear(x: Tensor, packed: Tensor, scales: Tensor, columns: int, bits: int, block_size: int) -> Tensor:
    """x [.., columns] times the transpose of a matrix [rows, columns] of `bits` a weight.

    packed: [rows, blocks, block_size * bits / 8] uint8, low bits first. scales: [rows, blocks]. A weight is its
    scale times what is packed less half the range, as in com.microsoft.MatMulNBits.
    """
    parts = [packed >> shift & (1 << bits) - 1 for shift in range(0, 8, bits)]
    whole = torch.stack(parts, -1).flatten(2).to(x.dtype) - (1 << bits - 1)
    matrix = (whole * scales.view(*packed.shape[:2], 1)).flatten(1)[:, :columns]
    return x @ matrix.T


@quantized_linear.register_fake
def _(x, packed, scales, columns, bits, block_size):
    return x.new_empty(*x.shape[:-1], packed.shape[0])
