"""Train heads of one decoder layer, with training-time test (Li et al. 2025, EAGLE-3, arXiv:2503.01840).

B  sequences      N  slots      D  hidden size      H  heads      G  key heads      C  size of a head
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from specc.heads import Head
from specc.heads.eagle3 import Eagle3
from specc.training.batches import Batch
from specc.training.closed_form import solve
from specc.training.course import Course
from specc.training.shards import Recording
from specc.training.teacher import Teacher

ROPE_THETA = 10000.0
HIDDEN = -1e9  # a score that softmax turns into zero


def _taps(layers: int) -> tuple[int, ...]:
    """Return an early layer, a middle one and the last. A small model has fewer."""
    return (*sorted({min(2, layers - 2), max(0, layers // 2 - 1)}), -1) if layers > 1 else (-1,)


def _settings(config: Any) -> dict[str, float]:
    heads = config.num_attention_heads
    rope = getattr(config, "rope_parameters", None) or {}
    return {
        "heads": heads,
        "key_heads": getattr(config, "num_key_value_heads", None) or heads,
        "head_size": getattr(config, "head_dim", None) or config.hidden_size // heads,
        "mlp_size": getattr(config, "intermediate_size", None) or 4 * config.hidden_size,
        "rope_theta": float(rope.get("rope_theta", ROPE_THETA)),
        "eps": float(getattr(config, "rms_norm_eps", 1e-6)),
    }


@torch.no_grad()
def _start(head: Head, teacher: Teacher, recordings: Sequence[Recording]) -> None:
    """Start the input products from a closed form, the last product from the model's, and the layer at zero."""
    assert isinstance(head, Eagle3)
    fit = solve(recordings, teacher.embedding, len(head.taps), head.eps)
    head.fc.weight.copy_(fit.taps)
    head.token.weight.copy_(fit.token)
    head.own.weight.copy_(fit.own)
    head.head.weight.copy_(teacher.product if head.vocabulary is None else teacher.product[head.vocabulary])
    head.norm.fill_(fit.scale)
    for layer in head.decoder_layers():
        layer.output.weight.zero_()
        layer.down.weight.zero_()


def _unroll(head: Head, batch: Batch, steps: int) -> list[Tensor]:
    """Run the layer on the model's states, then on its own, one slot later each time."""
    assert isinstance(head, Eagle3)
    tokens, positions = batch.tokens[:, 1:], torch.arange(batch.slots)[None]
    attention: list[Any] = [DraftAttention() for _ in head.layers]
    state = head.fuse(batch.states[:, :-1].float())
    streams: list[Tensor] = []
    for step in range(steps):
        if step:
            state = functional.pad(head.next_state(streams[-1])[:, :-1], (0, 0, 1, 0))
        streams.append(head.run_layers(tokens, positions, state, attention))
    return streams


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


def _product(head: Head, depth: int, rows: Tensor) -> Tensor:
    assert isinstance(head, Eagle3)
    return head.logits(rows)


COURSE = Course(
    architecture="eagle3",
    taps=_taps,
    settings=_settings,
    start=_start,
    unroll=_unroll,
    product=_product,
    steps=3,
    recurrent=True,
    rates={"fc": 0.15, "token": 0.15, "own": 0.15, "norm": 0.1, "head": 0.1},
)
