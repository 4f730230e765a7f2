"""Attention for one slot of many lanes at once. transformers calls it by its name."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "specc-answers"  # transformers' registry of attention functions has ours under this name
BLOCK = 32  # rows; so many or a multiple are read, so that products have few shapes (see `batches.STEP`)
HIDDEN = -1e9  # a score that softmax turns into zero


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attend from one slot of many lanes, without a copy of the keys for each head. transformers calls this.

    Rows that no lane sees are not read: a cache has room for answers that are not yet written. Where lanes have
    several slots, torch's own attention runs.

    Args:
        module: the layer's attention.
        query: [lanes, heads, slots, size].
        key: [lanes, key heads, rows, size].
        value: [lanes, key heads, rows, size].
        attention_mask: [lanes, 1, slots, rows] bool, true where a slot sees a row.
        scaling: of the products of queries and keys; 1 / sqrt(size) by default.
        others: arguments that some models add.

    Returns:
        The output, [lanes, slots, heads, size], and no weights.
    """
    lanes, heads, slots, size = query.shape
    scale, softcap, sinks = size**-0.5 if scaling is None else scaling, others.get("softcap"), others.get("s_aux")
    if softcap or sinks is not None:
        return _written_out(query, key, value, attention_mask, scale, softcap, sinks), None
    if attention_mask is not None:
        visible = int(attention_mask.flatten(0, 2).any(0).nonzero()[-1]) + 1
        rows = visible + -visible % BLOCK
        key, value, attention_mask = key[:, :, :rows], value[:, :, :rows], attention_mask[..., :rows]
    if slots > 1 or attention_mask is None:
        out, _ = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scale, **others)
        return out, None
    groups, rows = key.shape[1:3]
    keys, values = key.flatten(0, 1), value.flatten(0, 1)
    scaled = (query * scale).reshape(lanes * groups, heads // groups, size)
    scores = torch.bmm(keys, scaled.transpose(1, 2)).transpose(1, 2)
    scores = scores.reshape(lanes, heads, rows).masked_fill_(~attention_mask[:, 0], HIDDEN)
    weights = scores.softmax(-1).view(lanes * groups, heads // groups, rows)
    return torch.bmm(weights, values).view(lanes, 1, heads, -1), None


def _written_out(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    visible: Tensor | None,
    scale: float,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """Attend with what torch's operator lacks: a cap of the scores, or sinks that take a share of the softmax."""
    repeats, rows = query.shape[1] // key.shape[1], key.shape[2]
    scores = (query @ key.repeat_interleave(repeats, 1).transpose(2, 3)).float() * scale
    if softcap:
        scores = softcap * torch.tanh(scores / softcap)
    if visible is None:
        visible = torch.ones(query.shape[2], rows, dtype=torch.bool).tril(rows - query.shape[2])
    scores = scores.masked_fill(~visible, HIDDEN)
    if sinks is not None:
        scores = torch.cat([scores, sinks.view(1, -1, 1, 1).expand(*scores.shape[:3], 1)], -1)
    weights = scores.softmax(-1)[..., :rows].to(value.dtype)
    return (weights @ value.repeat_interleave(repeats, 1)).transpose(1, 2)


AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)
