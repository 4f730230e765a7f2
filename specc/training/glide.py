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
from specc.training.course import Course
from specc.training.eagle3 import layer_settings
from specc.training.guess_slots import backbone, unbound
from specc.training.layer_start import has_query, layer_weights, least_squares, queries_of, some
from specc.training.shards import Recording
from specc.training.states import run_with_cache
from specc.training.teacher import Teacher

STEPS = 4


def in_model(course: Course, model: PreTrainedModel) -> Course:
    """Bind the course to the model whose rows the head reads."""
    model.requires_grad_(False)
    return replace(course, unroll=partial(_unroll, model), start=partial(_start, model))


def _settings(config: Any) -> dict[str, float]:
    """Let the head read the layer behind the first quarter of the model, whose rows tell more than the last one's."""
    return layer_settings(config) | {"read_layer": config.num_hidden_layers // 4}


@torch.no_grad()
def _start(model: PreTrainedModel, head: Head, teacher: Teacher, recordings: Sequence[Recording]) -> None:
    """Start at the best linear guess from the last token, and from what the model's own query finds in its rows."""
    assert isinstance(head, Glide)
    layer, texts = head.layer, some(recordings)
    finals = [text.final.float() for text in texts]
    embeddings = [rms_norm(teacher.embedding[text.tokens], None, head.eps) for text in texts]
    head.token.weight.copy_(least_squares(embeddings, finals))
    head.norm.fill_(float(torch.cat(finals).pow(2).mean().sqrt()))
    for product in (layer.output, layer.down):
        product.weight.zero_()
    streams = [head.token(x) for x in embeddings]
    runs = [_run(model, text.tokens[None], head.read_layer) for text in texts]
    weights = layer_weights(model, head.read_layer)
    if has_query(weights):
        queries = [queries_of(layer, weights, state[0], later=0) for _, _, state in runs]
        reads = [rms_norm(x, None, head.eps) for x in streams]
        layer.rows_query.weight.copy_(least_squares(reads, queries))
    attended: list[Tensor] = []
    for x, (keys, values, _) in zip(streams, runs, strict=True):
        positions = torch.arange(len(x))
        visible = positions < positions.clamp(min=1)[:, None]
        query = layer.turned_query(x[None], positions[None])
        attended.append(_read(query, keys=keys, values=values, visible=visible).transpose(1, 2).flatten(2)[0])
    layer.rows_output.weight.copy_(least_squares(attended, [y - x for x, y in zip(streams, finals, strict=True)]))


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


def model_rows(model: PreTrainedModel, tokens: Tensor, layer: int) -> tuple[Tensor, Tensor]:
    """Run text [B, L], and return the keys and the values of a layer, [B, G, L, D] each.

    Raises:
        HeadError: the model does not keep the rows of all tokens.
    """
    keys, values, _ = _run(model, tokens, layer)
    return keys, values


@torch.no_grad()
def _run(model: PreTrainedModel, tokens: Tensor, layer: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `model_rows` returns, and the states that enter the layer, [B, L, d]."""
    cache: Any = DynamicCache()
    outputs = run_with_cache(backbone(model), cache, input_ids=tokens, output_hidden_states=True)
    keys, values = cache.layers[layer].keys.float(), cache.layers[layer].values.float()
    if keys.shape[2] != tokens.shape[1]:
        raise HeadError(
            f"layer {layer} keeps a window of its rows alone; train a head that reads states, such as eagle3"
        )
    return keys, values, outputs.hidden_states[layer].float()


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
    settings=_settings,
    start=unbound,
    unroll=unbound,
    product=_product,
    steps=STEPS,
    recurrent=True,
    rates={"token": 0.15, "norm": 0.1},
    in_model=in_model,
)
