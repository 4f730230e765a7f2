"""Train a residual stream that runs ahead of the model's own (see `specc.heads.m2r2`).

The model stays as it is. It runs on recorded text, and the second stream is compared with its states R times as deep.
The last comparison is that of all heads, by probabilities. The gate learns where the first choice of the exit is the
model's. Its slopes stay in the gate.

B  sequences      N  tokens of a sequence      D  hidden size
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache, PreTrainedModel

from specc.heads import Head
from specc.heads.layer import rotate
from specc.heads.m2r2 import M2R2
from specc.runtime.errors import HeadError
from specc.training.batches import Batch
from specc.training.course import Course
from specc.training.guess_slots import at_layer, backbone, fixed, product, unbound
from specc.training.shards import Recording
from specc.training.states import layers_of, run_with_cache, tapped
from specc.training.teacher import Teacher

RATE = 4  # R: how many layers of the model the second stream passes in one
RANK = 8  # The hidden size divided by it is the rank of the adapters, and the size of a latent state.
GATED = 512  # rows of an update from which the gate learns, since each needs two last products


def taps_of(layers: int) -> tuple[int, ...]:
    """Return the first layers, so many that the last of them can be near the model's last.

    Raises:
        HeadError: the model has one layer.
    """
    if layers < 2:
        raise HeadError(f"the model has {layers} layer, and M2R2 leaves some out; train it for a model of 2 or more")
    return tuple(range(max(1, layers // RATE)))


def settings(config: Any) -> dict[str, float]:
    """Return the settings for a model."""
    return {
        "rank": max(1, config.hidden_size // RANK),
        "latent": max(1, config.hidden_size // RANK),
        "eps": float(getattr(config, "rms_norm_eps", 1e-6)),
        "heads": config.num_attention_heads,
        "head_size": getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads,
    }


def deeper(head: Head) -> tuple[int, ...]:
    """Return for each of the head's layers the layer of the model whose states its stream is to be near."""
    rate = head.config.target.layers // len(head.taps)
    return tuple(rate * (tap + 1) - 1 for tap in head.taps)


class _Run:
    """The run of a model that a head is a part of.

    Attributes:
        model: the model.
        distance: how far the second stream was from the model's, after the last call of `unroll`.
        gates: what the gate said then, [B, N, 1].
        streams: what the second stream was behind each of the first layers then, K of [B, N + 1, D].
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model, self.distance, self.gates = model, torch.zeros(()), torch.zeros(())
        self.streams: list[Tensor] = []

    def unroll(self, head: Head, batch: Batch, steps: int) -> list[Tensor]:
        """Return what the last product reads of the second stream, [B, N, D], at each depth.

        The depths are equal: if the tokens of a draft are right, its rows of the first layers are the model's own.
        """
        assert isinstance(head, M2R2)
        taps, deep = head.taps, deeper(head)
        before: list[Tensor] = []
        fast: list[Tensor] = []
        cache: Any = DynamicCache()

        def leave(states: Tensor) -> Tensor:
            slow = [each.float() for each in (before[0], *(values[tap] for tap in taps))]
            fast.extend(head.accelerated(slow, lambda number, query: self.attend(head, cache, number, query)))
            return fast[-1].to(states.dtype)

        last = len(layers_of(self.model)) - 1
        with (
            tapped(self.model, (*taps, *deep)) as values,
            at_layer(self.model, None, before.append),
            at_layer(self.model, last, leave),
        ):
            run = run_with_cache(backbone(self.model), cache, input_ids=batch.tokens)
        rows: Tensor = run.last_hidden_state
        near = [1 - functional.cosine_similarity(a, values[b].float(), -1) for a, b in zip(fast, deep, strict=True)]
        self.distance = torch.stack([each[batch.valid].mean() for each in near]).mean()
        self.streams = [each.detach() for each in fast]
        self.gates = head.gate(torch.cat(self.streams, -1))[:, 1:]
        return [rows[:, 1:]] * steps

    def attend(self, head: M2R2, cache: Any, number: int, query: Tensor) -> Tensor:
        """Attend with queries [B, N, heads * size] to the model's own rows of a layer. Return as many numbers."""
        size = int(head.config.settings["head_size"])
        keys, values = (rows.float() for rows in (cache.layers[number].keys, cache.layers[number].values))
        by_head = torch.unflatten(query, -1, (-1, size)).transpose(1, 2)
        rotary = getattr(backbone(self.model), "rotary_emb", None)
        if rotary is not None:
            cos, sin = (table[:, None] for table in rotary(query, torch.arange(query.shape[1])[None]))
            turned, rest = by_head[..., : cos.shape[-1]], by_head[..., cos.shape[-1] :]
            by_head = torch.cat([rotate(turned, cos, sin), rest], -1)
        scales = (getattr(module, "scaling", None) for module in layers_of(self.model)[number].modules())
        scale = next((float(scale) for scale in scales if scale is not None), size**-0.5)
        attended = functional.scaled_dot_product_attention(
            by_head, keys, values, is_causal=True, scale=scale, enable_gqa=True
        )
        return attended.transpose(1, 2).flatten(2)

    def besides(self, head: Head, batch: Batch, features: list[Tensor]) -> Tensor:
        """Return how far the second stream is from the model's, and how wrong the gate is."""
        assert isinstance(head, M2R2)
        return self.distance + gate_loss(head, batch, features[0], self.gates)


def gate_loss(head: M2R2, batch: Batch, rows: Tensor, gates: Tensor) -> Tensor:
    """Return the cross entropy of the gate with whether the exit's first choice is the model's.

    Args:
        head: the head.
        batch: recorded text.
        rows: [B, N, D]: what the last product reads of the second stream.
        gates: [B, N, 1]: the logits of the gate.
    """
    lanes, slots = batch.rows(0).nonzero(as_tuple=True)
    step = -(-len(lanes) // GATED)
    lanes, slots = lanes[::step], slots[::step]
    with torch.no_grad():
        ours, models = (product(head, 0, x[lanes, slots].float()) for x in (rows, batch.final[:, 1:]))
        is_right = (ours.argmax(-1) == models.argmax(-1)).float()
    return functional.binary_cross_entropy_with_logits(gates[lanes, slots, 0].float(), is_right)


def start(head: Head, teacher: Teacher, recordings: Sequence[Recording]) -> None:
    """Start as the model's own stream."""
    assert isinstance(head, M2R2)
    head.begin()


def in_model(course: Course, model: PreTrainedModel) -> Course:
    """Return the course whose heads run in a model, which stays as it is."""
    run = _Run(fixed(model))
    return replace(course, unroll=run.unroll, besides=run.besides)


COURSE = Course(
    architecture="m2r2",
    taps=taps_of,
    settings=settings,
    start=start,
    unroll=unbound,
    product=product,
    steps=1,
    recurrent=True,
    in_model=in_model,
)
