"""Train a layer that reads the model's keys and values (Du et al. 2024, GliDe, arXiv:2402.02082).

The model runs on each batch once more, since its rows are too large to record. A draft of depth k sees the rows that
the model had k tokens before. The paper hides the rows of a block of five tokens in training; here each depth is
trained at each place. Both learn to draft without the newest rows. Probabilities are learned in place of tokens.

B  sequences      L  tokens      H  heads      G  heads of keys and values      D  size of a head
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import DynamicCache, PreTrainedModel

from specc.heads import Head
from specc.heads.glide import Glide
from specc.heads.head import rms_norm
from specc.runtime.errors import HeadError
from specc.training.batches import Batch
from specc.training.closed_form import ROWS, Squares
from specc.training.course import Course
from specc.training.eagle3 import layer_settings
from specc.training.guess_slots import backbone, unbound
from specc.training.shards import Recording
from specc.training.teacher import Teacher

STEPS = 4


def in_model(course: Course, model: PreTrainedModel) -> Course:
    """Bind the course to the model whose rows the head reads."""
    return replace(course, unroll=partial(_unroll, model.requires_grad_(False)))


@torch.no_grad()
def _start(head: Head, teacher: Teacher, recordings: Sequence[Recording]) -> None:
    """Start at the best linear guess from the last token alone, and all that the layer adds at zero."""
    assert isinstance(head, Glide)
    size = teacher.embedding.shape[1]
    squares, total, rows = Squares(size, size), 0.0, 0
    for recording in recordings:
        if rows > ROWS:
            break
        final = recording.final.float()
        squares.add(rms_norm(teacher.embedding[recording.tokens], None, head.eps), final)
        total, rows = total + float(final.pow(2).sum()), rows + len(final)
    head.token.weight.copy_(squares.solve().T)
    head.norm.fill_((total / max(1, rows * size)) ** 0.5)
    for product in (head.layer.output, head.layer.down, head.layer.rows_output):
        product.weight.zero_()


def _unroll(model: PreTrainedModel, head: Head, batch: Batch, steps: int) -> list[Tensor]:
    """Run the layer at each depth on the rows that the model had so many tokens before."""
    assert isinstance(head, Glide)
    tokens, positions = batch.tokens, torch.arange(batch.tokens.shape[1])
    keys, values = model_rows(model, tokens, head.read_layer)
    x = head.stream(tokens, positions[None], _causal)
    streams = []
    for step in range(steps):
        limits = (positions - step).clamp(min=1)
        read = partial(_read, keys=keys, values=values, visible=positions < limits[:, None])
        streams.append(head.finish(x, positions[None], read)[:, 1:])
    return streams


@torch.no_grad()
def model_rows(model: PreTrainedModel, tokens: Tensor, layer: int) -> tuple[Tensor, Tensor]:
    """Run text [B, L], and return the keys and the values of a layer, [B, G, L, D] each.

    Raises:
        HeadError: the model does not keep the rows of all tokens.
    """
    cache: Any = DynamicCache()
    backbone(model)(input_ids=tokens, past_key_values=cache, use_cache=True)
    keys, values = cache.layers[layer].keys.float(), cache.layers[layer].values.float()
    if keys.shape[2] != tokens.shape[1]:
        raise HeadError(
            f"layer {layer} keeps a window of its rows alone; train a head that reads states, such as eagle3"
        )
    return keys, values


def _causal(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)


def _read(query: Tensor, *, keys: Tensor, values: Tensor, visible: Tensor) -> Tensor:
    keys, values = keys.to(query.dtype), values.to(query.dtype)
    return functional.scaled_dot_product_attention(query, keys, values, attn_mask=visible, enable_gqa=True)


def _product(head: Head, depth: int, rows: Tensor) -> Tensor:
    assert isinstance(head, Glide)
    return head.logits(rows)


COURSE = Course(
    architecture="glide",
    taps=lambda layers: (),
    settings=layer_settings,
    start=_start,
    unroll=unbound,
    product=_product,
    steps=STEPS,
    recurrent=True,
    rates={"token": 0.15, "norm": 0.1},
    in_model=in_model,
)
