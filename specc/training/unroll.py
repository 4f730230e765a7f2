"""Run a head of decoder layers on recorded text, so that its drafts stand on drafts.

B  sequences      N  slots      D  hidden size      H  heads      G  key heads      C  size of a head
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from specc.heads import Head
from specc.heads.layer_head import LayerHead
from specc.training.batches import Batch

HIDDEN = -1e9  # a score that softmax turns into zero


def unroll(head: Head, batch: Batch, steps: int) -> list[Tensor]:
    """Run the layers on the model's states, then on the head's own, one slot later each time.

    It is EAGLE-3's training-time test (Li et al. 2025, arXiv:2503.01840).
    """
    return unroll_from(head, batch, steps, lambda layers, x: layers.next_state(x))


def unroll_from(head: Head, batch: Batch, steps: int, following: Callable[[LayerHead, Tensor], Tensor]) -> list[Tensor]:
    """Run the layers on the model's states, then on other states, one slot later each time.

    Args:
        head: the head.
        batch: recorded text.
        steps: the depths.
        following: makes the states [B, N, s] of the next depth, from the residual stream behind the layers.

    Returns:
        The residual stream behind the layers at each depth, [B, N, D].
    """
    assert isinstance(head, LayerHead)
    tokens, positions = batch.tokens[:, 1:], torch.arange(batch.slots)[None]
    attention: list[Any] = [DraftAttention() for _ in head.layers]
    state = head.fuse(batch.states[:, :-1].float())
    streams: list[Tensor] = []
    for step in range(steps):
        if step:
            state = later(following(head, streams[-1]), 1)
        streams.append(head.run_layers(tokens, positions, state, attention))
    return streams


def layer_logits(head: Head, depth: int, rows: Tensor) -> Tensor:
    """Make logits of rows of the residual stream. They do not depend on the depth."""
    assert isinstance(head, LayerHead)
    return head.logits(rows)


def later(rows: Tensor, count: int) -> Tensor:
    """Move rows [B, N, D] to slots that are `count` later."""
    return functional.pad(rows, (0, 0, count, 0))[:, : rows.shape[1]] if count else rows


class DraftAttention:
    """Attention of a draft of growing depth, for the drafts from all slots at once. One object serves one layer.

    At depth k, row i belongs to the draft that starts in row i - k. It sees the rows up to i - k of depth 0, and of
    each later depth m the row i - k + m, its own included.
    """

    def __init__(self) -> None:
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []

    def __call__(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """Attend at the next depth.

        Args:
            query: [B, H, N, C].
            key: [B, G, N, C].
            value: [B, G, N, C].

        Returns:
            [B, H, N, C].
        """
        groups = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        query = query.to(value.dtype)
        depth, slots = len(self.keys), query.shape[2]
        self.keys.append(key.to(value.dtype))
        self.values.append(value)
        if depth == 0:
            return functional.scaled_dot_product_attention(query, self.keys[0], value, is_causal=True)
        visible = torch.ones(slots, slots, dtype=torch.bool).tril(-depth)
        scores = (query @ self.keys[0].transpose(2, 3)).masked_fill(~visible, HIDDEN)
        drafts = [_later(keys, depth - m) for m, keys in enumerate(self.keys[1:], 1)]
        own_scores = [(query * keys).sum(-1, keepdim=True) for keys in drafts]
        weights = torch.cat([scores, *own_scores], -1).float().mul(query.shape[-1] ** -0.5).softmax(-1).to(value.dtype)
        out = weights[..., :slots] @ self.values[0]
        for m, values in enumerate(self.values[1:], 1):
            out = out + weights[..., slots + m - 1, None] * _later(values, depth - m)
        return out


def _later(rows: Tensor, count: int) -> Tensor:
    """Move rows [B, H, N, C] to slots that are `count` later."""
    return functional.pad(rows, (0, 0, count, 0))[:, :, : rows.shape[2]] if count else rows
