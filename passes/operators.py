"""The operators that passes put into graphs. Each has its meaning in torch, so that a graph runs between two passes.

H  heads      G  heads of keys and values      D  size of a head
N  slots      C  capacity of the cache         T  span, the rows that the mask governs      R  rotated sizes
B  lanes
"""

from __future__ import annotations

import torch
from torch import Tensor


@torch.library.custom_op("specc::attention", mutates_args=())
def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    sinks: Tensor | None,
    scale: float,
    window: int,
    softcap: float,
    layer: int,
) -> Tensor:
    """Attend causally within a whole sequence.

    Args:
        query: [1, H, N, D] float.
        key: [1, G, N, D] float; each head serves H / G heads of queries.
        value: [1, G, N, D] float.
        sinks: [H] float: a logit for each head that takes its share of the softmax and adds nothing. None is off.
        scale: The factor of the scores, before the cap.
        window: The number of rows that a slot sees, itself included. 0 sees all.
        softcap: The bound c of the scores: c * tanh(scores / c). 0 is off.
        layer: The index of the layer. It names the layer's cache.

    Returns:
        [1, H, N, D] float.
    """
    rows = torch.arange(query.shape[2])
    visible = _near(rows[:, None] >= rows, rows, rows, window)
    return attend(query, key, value, visible, sinks, scale, softcap)


@attention.register_fake
def _(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    sinks: Tensor | None,
    scale: float,
    window: int,
    softcap: float,
    layer: int,
) -> Tensor:
    return query.new_empty(*query.shape[:-1], value.shape[-1])


@torch.library.custom_op("specc::cached_attention", mutates_args=())
def cached_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    past_key: Tensor,
    past_value: Tensor,
    past_len: Tensor,
    mask: Tensor,
    positions: Tensor,
    sinks: Tensor | None,
    scale: float,
    window: int,
    softcap: float,
    layer: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Attend from N slots to a cache, after the slots' rows are written into it from row `past_len` on.

    Args:
        query: [1, H, N, D] float.
        key: [1, G, N, D] float: the slots' rows.
        value: [1, G, N, D] float: the slots' rows.
        past_key: [1, G, C, D] float: the cache.
        past_value: [1, G, C, D] float: the cache.
        past_len: [1] int64: the number of rows in use.
        mask: [N, T] bool. Of the last T rows in use, the slots' included, a slot sees those that the mask shows.
            It sees every row before them.
        positions: [1, N] int64: the slots' positions. The position of a row is its number; but if T is N, the rows
            of the slots have the slots' positions.
        sinks: See `attention`.
        scale: See `attention`.
        window: The number of positions that a slot sees back, its own included. 0 sees all.
        softcap: See `attention`.
        layer: See `attention`.

    Returns:
        The output [1, H, N, D], and the two caches with the new rows.
    """
    past, slots = int(past_len), query.shape[2]
    keys, values = past_key.clone(), past_value.clone()
    keys[:, :, past : past + slots] = key
    values[:, :, past : past + slots] = value
    total = past + slots
    visible = torch.cat([torch.ones(slots, total, dtype=torch.bool), mask], 1)[:, -total:]
    rows = torch.arange(total)
    if mask.shape[1] == slots:
        rows[past:] = positions[0]
    visible = _near(visible, positions[0], rows, window)
    out = attend(query, keys[:, :, :total], values[:, :, :total], visible, sinks, scale, softcap)
    return out, keys, values


@cached_attention.register_fake
def _(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    past_key: Tensor,
    past_value: Tensor,
    past_len: Tensor,
    mask: Tensor,
    positions: Tensor,
    sinks: Tensor | None,
    scale: float,
    window: int,
    softcap: float,
    layer: int,
) -> tuple[Tensor, Tensor, Tensor]:
    return query.new_empty(*query.shape[:-1], value.shape[-1]), torch.empty_like(past_key), torch.empty_like(past_value)


@torch.library.custom_op("specc::lanes_attention", mutates_args=())
def lanes_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pasts: list[Tensor],
    past_len: Tensor,
    widths: Tensor,
    mask: Tensor | None,
    positions: Tensor,
    sinks: Tensor | None,
    scale: float,
    window: int,
    softcap: float,
    layer: int,
) -> list[Tensor]:
    """Attend from the slots of B lanes, each to a cache of its own. The lanes' slots stand in one line, N in all.

    Args:
        query: See `cached_attention`.
        key: See `cached_attention`.
        value: See `cached_attention`.
        pasts: Keys and values [1, G, C, D] of each lane's cache: those of lane 0, then those of lane 1, and so on.
        past_len: [B] int64: the number of rows in use of each lane.
        widths: [B] int64: the number of slots of each lane, N in all.
        mask: [N, T] bool, which governs the last T rows in use of each slot's lane. None lets each lane be a chain.
        positions: See `cached_attention`.
        sinks: See `attention`.
        scale: See `attention`.
        window: See `cached_attention`.
        softcap: See `attention`.
        layer: See `attention`.

    Returns:
        The output [1, H, N, D], and the caches with the new rows, in the order of `pasts`.
    """
    ends = widths.cumsum(0).tolist()
    outs: list[Tensor] = []
    caches: list[Tensor] = []
    for lane, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
        chain = torch.ones(end - start, end - start, dtype=torch.bool).tril()
        out, *rows = cached_attention(
            *(heads[:, :, start:end] for heads in (query, key, value)),
            *pasts[2 * lane : 2 * lane + 2],
            past_len[lane : lane + 1],
            chain if mask is None else mask[start:end],
            positions[:, start:end],
            sinks,
            scale,
            window,
            softcap,
            layer,
        )
        outs.append(out)
        caches += rows
    return [torch.cat(outs, 2), *caches]


@lanes_attention.register_fake
def _(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    pasts: list[Tensor],
    past_len: Tensor,
    widths: Tensor,
    mask: Tensor | None,
    positions: Tensor,
    sinks: Tensor | None,
    scale: float,
    window: int,
    softcap: float,
    layer: int,
) -> list[Tensor]:
    return [query.new_empty(*query.shape[:-1], value.shape[-1]), *(torch.empty_like(past) for past in pasts)]


def _near(visible: Tensor, positions: Tensor, rows: Tensor, window: int) -> Tensor:
    """Restrict `visible` [N, rows] to the rows whose positions lie in the window of each slot's position."""
    return visible & (positions[:, None] - rows < window) if window else visible


def attend(
    query: Tensor, key: Tensor, value: Tensor, visible: Tensor, sinks: Tensor | None, scale: float, softcap: float
) -> Tensor:
    """Compute attention under a mask `visible` [N, rows]."""
    groups = query.shape[1] // key.shape[1]
    scores = query @ key.repeat_interleave(groups, 1).transpose(2, 3) * scale
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    scores = scores.masked_fill(~visible, float("-inf"))
    if sinks is not None:
        scores = torch.cat([scores, sinks.view(1, -1, 1, 1).expand(1, -1, query.shape[2], 1)], -1)
    weights = scores.softmax(-1)[..., : key.shape[2]]
    return weights @ value.repeat_interleave(groups, 1)


@torch.library.custom_op("specc::rotary", mutates_args=())
def rotary(x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor, interleaved: bool) -> Tensor:
    """Turn the first R sizes of each head by the angles of its slot's position (Su et al. 2021, arXiv:2104.09864).

    Args:
        x: [1, H, N, D] float.
        cos: [positions, R / 2] float.
        sin: [positions, R / 2] float.
        positions: [1, N] int64: the row of the tables for each slot.
        interleaved: Whether sizes 2 i and 2 i + 1 turn together. If not, sizes i and i + R / 2 do.

    Returns:
        [1, H, N, D] float.
    """
    half = cos.shape[1]
    turned, rest = x[..., : 2 * half], x[..., 2 * half :]
    c, s = cos[positions], sin[positions]  # [1, N, R / 2], the same for all heads
    a, b = (turned[..., ::2], turned[..., 1::2]) if interleaved else (turned[..., :half], turned[..., half:])
    pair = (a * c - b * s, b * c + a * s)
    turned = torch.stack(pair, -1).flatten(-2) if interleaved else torch.cat(pair, -1)
    return torch.cat([turned, rest], -1)


@rotary.register_fake
def _(x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor, interleaved: bool) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("specc::rms_norm", mutates_args=())
def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Compute x / sqrt(mean(x²) + eps) * weight over the last axis (Zhang & Sennrich 2019, arXiv:1910.07467)."""
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * weight


@rms_norm.register_fake
def _(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    return torch.empty_like(x)


@torch.library.custom_op("specc::quantized_linear", mutates_args=())
def quantized_linear(x: Tensor, packed: Tensor, scales: Tensor, columns: int, bits: int, block_size: int) -> Tensor:
    """Multiply by the transpose of a quantised matrix [rows, columns], laid out as com.microsoft.MatMulNBits reads it.

    A weight is its block's scale times its unsigned number less half the range, 2 ** (bits - 1).

    Args:
        x: [..., columns] float.
        packed: [rows, blocks, block_size * bits / 8] uint8, the low bits first.
        scales: [rows, blocks] float.
        columns: The number of columns; the last block may hold padding behind them.
        bits: 2, 4 or 8 bits a weight.
        block_size: The number of weights that share a scale.

    Returns:
        [..., rows] float.
    """
    parts = [packed >> shift & (1 << bits) - 1 for shift in range(0, 8, bits)]
    numbers = torch.stack(parts, -1).flatten(2).to(x.dtype) - (1 << bits - 1)
    matrix = (numbers * scales.view(*packed.shape[:2], 1)).flatten(1)[:, :columns]
    return x @ matrix.T


@quantized_linear.register_fake
def _(x: Tensor, packed: Tensor, scales: Tensor, columns: int, bits: int, block_size: int) -> Tensor:
    return x.new_empty(*x.shape[:-1], packed.shape[0])


@torch.library.custom_op("specc::panel_linear", mutates_args=())
def panel_linear(x: Tensor, panels: Tensor, columns: int, k: int) -> Tensor:
    """Multiply by a matrix [K, columns] whose columns stand in panels of 32, as specc.LinearF32 and LinearBF16 read it.

    Args:
        x: [..., K] float.
        panels: [panels, K, 32] float32, or [panels, K / 2 rounded up, 32, 2] bfloat16.
        columns: The number of columns; those that fill the last panel are zeros.
        k: The number of rows, K. An odd one is not seen from panels in bfloat16.

    Returns:
        [..., columns] float.
    """
    return x @ _columns(panels)[:k, :columns]


@panel_linear.register_fake
def _(x: Tensor, panels: Tensor, columns: int, k: int) -> Tensor:
    return x.new_empty(*x.shape[:-1], columns)


@torch.library.custom_op("specc::panel_embedding", mutates_args=())
def panel_embedding(ids: Tensor, panels: Tensor, columns: int, k: int) -> Tensor:
    """Look rows up in a table [columns, K] that stands in panels of 32 rows, as specc.GatherBF16 reads it.

    Args:
        ids: [...] int64, below `columns`.
        panels: [panels, K / 2 rounded up, 32, 2] bfloat16.
        columns: The number of rows of the table, which are columns to a product with its transpose.
        k: The number of values of a row, K.

    Returns:
        [..., K] float.
    """
    return _columns(panels)[:k, :columns].T[ids]


@panel_embedding.register_fake
def _(ids: Tensor, panels: Tensor, columns: int, k: int) -> Tensor:
    return panels.new_empty(*ids.shape, k, dtype=torch.float32)


def _columns(panels: Tensor) -> Tensor:
    """Return the matrix in float32 that panels hold, with the zeros that fill it up."""
    if panels.dtype == torch.bfloat16:
        panels = panels.transpose(2, 3).flatten(1, 2).to(torch.float32)
    return panels.transpose(0, 1).flatten(1)


@torch.library.custom_op("specc::panel_quantized_linear", mutates_args=())
def panel_quantized_linear(
    x: Tensor,
    panels: Tensor,
    scales: Tensor,
    columns: int,
    bits: int,
    block_size: int,
    k: int,
    offsets: Tensor | None = None,
) -> Tensor:
    """Multiply by a quantised matrix [K, columns] in panels of 32 columns, as specc.LinearNBits reads it.

    A weight is its block's scale times its unsigned number less half the range, 2 ** (bits - 1). With offsets it is its
    block's scale times its number, plus its block's offset.

    Args:
        x: [..., K] float.
        panels: [panels, blocks, block_size / 4, 64] uint8 for 4 bits, [panels, blocks, block_size / 4, 2, 64] for 8.
        scales: [panels, blocks, 32] float.
        columns: The number of columns.
        bits: 4 or 8 bits a weight.
        block_size: The number of weights of a column that share a scale.
        k: The number of rows, K. Zeros fill the last block.
        offsets: [panels, blocks, 32] float, or None.

    Returns:
        [..., columns] float.
    """
    halves = torch.stack([panels & 15, panels >> 4], -2) if bits == 4 else panels
    count, blocks, steps = halves.shape[:3]
    # 64 bytes hold 16 columns with four values of K each; two of them are a panel.
    split = halves.reshape(count, blocks, steps, 2, 16, 4).permute(0, 1, 2, 5, 3, 4)
    numbers = split.reshape(count, blocks, block_size, 32).to(x.dtype)
    scales = scales[:, :, None].to(x.dtype)
    offset = scales * -(2.0 ** (bits - 1)) if offsets is None else offsets[:, :, None]
    matrix = (numbers * scales + offset).flatten(1, 2).transpose(0, 1).flatten(1)
    return x @ matrix[:k, :columns]


@panel_quantized_linear.register_fake
def _(
    x: Tensor,
    panels: Tensor,
    scales: Tensor,
    columns: int,
    bits: int,
    block_size: int,
    k: int,
    offsets: Tensor | None = None,
) -> Tensor:
    return x.new_empty(*x.shape[:-1], columns)
