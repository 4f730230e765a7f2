"""Train a small model that attends to the states of the large one (see `specc.heads.tandem`).

The head runs on recorded states, then on its own of the tokens of a draft, as in EAGLE-3's training-time test (Li et
al. 2025, arXiv:2503.01840). That is the paper's block: within it the head sees no states of the model.

The paper's small model was trained before. Here each layer of it starts from the layer of the model that reads the same
states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedModel

from specc.heads import Head
from specc.heads.head import parts, rms_norm
from specc.heads.tandem import Tandem, TandemLayer
from specc.training.batches import Batch
from specc.training.course import Course
from specc.training.eagle3 import layer_settings
from specc.training.layer_start import NORM, copy_products, has_query, layer_weights, least_squares, queries_of, some
from specc.training.shards import Recording
from specc.training.teacher import Teacher
from specc.training.unroll import DraftAttention, later, layer_logits

STEPS = 3
Weights = Mapping[int, dict[str, Tensor]]  # of the layer that reads the states after a tap, see `layer_weights`


def taps_of(layers: int) -> tuple[int, ...]:
    """Return the layers behind a quarter and behind a half of the model. A small model has one such layer."""
    return tuple(sorted({max(0, layers // 4 - 1), max(0, layers // 2 - 1)}))


def from_model(course: Course, model: PreTrainedModel) -> Course:
    """Let the head start from the layers of a model that read the states after its taps."""
    layers = model.config.get_text_config().num_hidden_layers
    weights = {tap: layer_weights(model, tap + 1) for tap in taps_of(layers) if tap + 1 < layers}
    return replace(course, start=partial(start, weights))


@torch.no_grad()
def start(weights: Weights, head: Head, teacher: Teacher, recordings: Sequence[Recording]) -> None:
    """Start in closed form, and the MLPs at zero.

    Args:
        weights: those of the model's layers; none leaves keys and values as they are, small and random.
        head: the head.
        teacher: the model's tables.
        recordings: text with states.
    """
    assert isinstance(head, Tandem) and head.head is not None and head.norm is not None
    texts = some(recordings)
    head.head.weight.copy_(teacher.product if head.vocabulary is None else teacher.product[head.vocabulary])
    finals = [text.final[1:].float() for text in texts]
    head.norm.fill_(float(torch.cat(finals).pow(2).mean().sqrt()))
    embeddings = [rms_norm(teacher.embedding[text.tokens[1:]], None, head.eps) for text in texts]
    head.token.weight.copy_(least_squares(embeddings, finals))
    streams = [head.token(x) for x in embeddings]
    for number, layer in enumerate(head.decoder_layers()):
        assert isinstance(layer, TandemLayer)
        torch.nn.init.eye_(head.projections[number].weight)  # type: ignore[arg-type]
        states = [parts(text.states.float(), len(head.taps))[number] for text in texts]
        streams = _start_layer(head, number, layer, weights.get(head.taps[number], {}), states, streams, finals)


def _start_layer(
    head: Tandem,
    number: int,
    layer: TandemLayer,
    weights: dict[str, Tensor],
    states: Sequence[Tensor],
    streams: Sequence[Tensor],
    finals: Sequence[Tensor],
) -> list[Tensor]:
    """Start one layer from texts.

    Args:
        head: the head.
        number: of the layer.
        layer: the layer.
        weights: of the model's layer.
        states: the model's, of all tokens of each text, [n, d].
        streams: the residual streams that enter the layer, of all tokens but the first, [n - 1, d].
        finals: what the model's last product reads, of the same tokens.

    Returns:
        The residual streams behind the layer.
    """
    reads = [rms_norm(x, None, head.eps) for x in streams]
    sources = [rms_norm(state, None, head.eps) for state in states]
    head.own_states[number].weight.copy_(least_squares(reads, [x[1:] for x in sources]))  # type: ignore[operator]
    copy_products(layer, weights, ("key", "value"))
    if has_query(weights):
        layer.source_norm.copy_(weights[NORM])
        queries = [queries_of(layer, weights, state[1:], later=1) for state in states]
        layer.query.weight.copy_(least_squares(reads, queries))
    attended: list[Tensor] = []

    def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = functional.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        attended.append(out.transpose(1, 2).flatten(2)[0])
        return out

    for x, source in zip(streams, sources, strict=True):
        layer(source[None, :-1], x[None], torch.arange(len(x))[None], attend)
    layer.output.weight.copy_(least_squares(attended, [y - x for x, y in zip(streams, finals, strict=True)]))
    layer.down.weight.zero_()
    return [x + layer.output(each) for x, each in zip(streams, attended, strict=True)]


def unroll(head: Head, batch: Batch, steps: int) -> list[Tensor]:
    """Run the layers on the model's states, then on the head's own, one slot later each time."""
    assert isinstance(head, Tandem)
    tokens, positions = batch.tokens[:, 1:], torch.arange(batch.slots)[None]
    attention: list[Any] = [DraftAttention() for _ in head.layers]
    state, streams = head.fuse(batch.states[:, :-1].float()), []
    for _ in range(steps):
        x, own = head.run_tandem(tokens, positions, state, attention)
        streams.append(x)
        state = later(own, 1)
    return streams


COURSE = Course(
    architecture="tandem",
    taps=taps_of,
    settings=layer_settings,
    start=partial(start, {}),
    unroll=unroll,
    product=layer_logits,
    steps=STEPS,
    recurrent=True,
    rates={"token": 0.15, "projections": 0.15, "own_states": 0.15, "norm": 0.1, "head": 0.1},
    from_model=from_model,
)
