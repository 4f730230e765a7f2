"""Train heads whose guesses are slots of the model's own run (see `specc.heads.guess_slots`).

The model stays as it is. Its layers run on the slots behind each token of recorded text, and the slopes go through
them to what the slots begin with. The loss is that of all heads: cross entropy with the model's own probabilities. Its
weight falls by 0.8 from guess to guess, as in Parallel Prompt Decoding (Chen et al. 2024, arXiv:2405.18628).

B  sequences      N  tokens of a sequence      K  guesses      D  hidden size
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import DynamicCache, PreTrainedModel

from specc.heads import Head
from specc.heads.guess_slots import SlotHead
from specc.runtime.errors import HeadError
from specc.training.batches import Batch
from specc.training.course import Course
from specc.training.lane_attention import ATTENTION
from specc.training.shards import Recording
from specc.training.states import layers_of, run_with_cache
from specc.training.teacher import Teacher
from specc.training.unroll import later

GUESSES = 3
DEEP = 0.75  # share of the layers behind which pseudo hidden states begin; the paper's are deep, too
RANK = 32  # of the product that makes the state of a stream
TABLE_RATE = 12.0  # times the learning rate of layers, since an embedding has few numbers


class Start(NamedTuple):
    """The states with which successive guesses begin.

    Attributes:
        after: the layer behind which they begin; None for before all layers.
        first: the number of the first of them.
        states: [B, N, their number, D].
    """

    after: int | None
    first: int
    states: Tensor


def in_model(course: Course, model: PreTrainedModel) -> Course:
    """Return a course whose heads run in a model, which stays as it is."""
    return replace(course, unroll=partial(_unroll, fixed(model)), start=partial(begin, model))


def fixed(model: PreTrainedModel) -> PreTrainedModel:
    """Return a model that training does not change, and whose attention takes a mask of any shape."""
    model.requires_grad_(False)
    model.set_attn_implementation(ATTENTION)
    return model


def unbound(*_: Any) -> Any:
    """Refuse to run a head without its model. Raises HeadError."""
    raise HeadError("this head runs in the model's own slots; bind its course to a model with in_model")


def product(head: Head, depth: int, rows: Tensor) -> Tensor:
    """Return the logits [M, V] of rows [M, D] by the model's own product."""
    assert head.product is not None, "no table was attached"
    return functional.linear(rows, head.product.to(rows.dtype))


def begin(model: PreTrainedModel, head: Head, teacher: Teacher, recordings: Sequence[Recording]) -> None:
    """Start near the mean of what enters the layers, so that the first updates see states of the usual size."""
    assert isinstance(head, SlotHead)
    with torch.no_grad():
        _, states = read(model, max(recordings, key=len).tokens[None], head)
    head.begin(states[0].flatten(0, 1).float())


def _unroll(model: PreTrainedModel, head: Head, batch: Batch, steps: int) -> list[Tensor]:
    """Run the slots behind each token, and return what the last product reads of guess k, so many rows later."""
    assert isinstance(head, SlotHead)
    tokens = batch.tokens[:, :-1]
    with torch.no_grad():
        cache, states = read(model, tokens, head)
    rows = run_slots(model, starts_of(head, states), cache)
    return [later(rows[:, :, depth], depth) for depth in range(min(steps, head.count))]


def read(model: PreTrainedModel, tokens: Tensor, head: SlotHead) -> tuple[Any, list[Tensor]]:
    """Run text [B, N]. Return its keys and values, and the states [B, N, D] at each place where slots begin."""
    cache: Any = DynamicCache()
    with at_places(model, head) as states:
        run_with_cache(backbone(model), cache, input_ids=tokens)
    return cache, states


@contextmanager
def at_places(model: PreTrainedModel, head: SlotHead) -> Iterator[list[Tensor]]:
    """Collect the states [B, N, D] at each place where slots of a head begin, in one run of a model."""
    states: list[Tensor] = []
    with ExitStack() as stack:
        for place in head.starting_places:
            stack.enter_context(at_layer(model, place.after, states.append))
        yield states


def starts_of(head: SlotHead, states: Sequence[Tensor]) -> list[Start]:
    """Return what the slots behind tokens begin with, by place, from the tokens' states [B, N, D] there."""
    return [
        Start(place.after, place.first, head.starts_of(each.float(), place.first, place.count).to(each.dtype))
        for place, each in zip(head.starting_places, states, strict=True)
    ]


def run_slots(model: PreTrainedModel, starts: Sequence[Start], cache: Any) -> Tensor:
    """Run slots behind tokens that have run. Return what the last product reads of them, [B, N, K, D].

    Args:
        model: the model.
        starts: what they begin with.
        cache: the keys and values of the tokens. It gets those of the slots, too.
    """
    lanes, count = starts[0].states.shape[:2]
    guesses = sum(start.states.shape[2] for start in starts)
    token, number = (
        axis.flatten() for axis in torch.meshgrid(torch.arange(count), torch.arange(guesses), indexing="ij")
    )
    chain = (token[:, None] == token) & (number[:, None] >= number)
    visible = torch.cat([token[:, None] >= torch.arange(count), chain], 1)
    with ExitStack() as stack:
        for start in starts:
            stack.enter_context(at_layer(model, start.after, partial(_put, start, guesses)))
        rows = run_with_cache(
            backbone(model),
            cache,
            input_ids=torch.zeros(lanes, count * guesses, dtype=torch.long),
            position_ids=(token + 1 + number)[None].expand(lanes, -1),
            attention_mask=visible[None, None].expand(lanes, 1, -1, -1),
        ).last_hidden_state
    result: Tensor = torch.unflatten(rows, 1, (count, guesses))
    return result


def _put(start: Start, guesses: int, states: Tensor) -> Tensor:
    """Return the states of all slots, [B, N * K, D], in which some slots begin anew."""
    by_guess = torch.unflatten(states, 1, (-1, guesses))
    behind = by_guess[:, :, start.first + start.states.shape[2] :]
    return torch.cat([by_guess[:, :, : start.first], start.states, behind], 2).flatten(1, 2)


def backbone(model: PreTrainedModel) -> Any:
    """Return the model without its last product."""
    return model.base_model


@contextmanager
def at_layer(model: PreTrainedModel, after: int | None, change: Any) -> Iterator[None]:
    """Hand the states after a layer, or those that enter the first one, to a function. What it returns replaces them.

    Args:
        model: the model.
        after: the layer; None for what enters the first one.
        change: takes the states; None leaves them.
    """
    layers = layers_of(model)

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        states = args[0] if args else kwargs["hidden_states"]
        new = change(states)
        if new is None:
            return None
        return ((new, *args[1:]), kwargs) if args else (args, kwargs | {"hidden_states": new})

    def leave(module: nn.Module, args: Any, output: Any) -> Any:
        states = output[0] if isinstance(output, tuple) else output
        new = change(states)
        if new is None:
            return None
        return (new, *output[1:]) if isinstance(output, tuple) else new

    if after is None:
        handle = layers[0].register_forward_pre_hook(enter, with_kwargs=True)
    else:
        handle = layers[after].register_forward_hook(leave)
    try:
        yield
    finally:
        handle.remove()


def _behind_one(layers: int) -> tuple[int, ...]:
    """Return the layer behind which all slots begin."""
    return (min(layers - 2, int(DEEP * layers)),)


def _behind_each(layers: int) -> tuple[int, ...]:
    """Return a layer for each guess, one behind the other. A later guess begins later, since it sees those before."""
    last = min(layers - 2, int(DEEP * layers))
    return tuple(max(0, last - GUESSES + 1 + guess) for guess in range(GUESSES))


def _course(
    architecture: str,
    rates: Mapping[str, float],
    taps: Callable[[int], tuple[int, ...]] = lambda layers: (),
    **settings: float,
) -> Course:
    """Return the course of an architecture.

    Args:
        architecture: its name.
        rates: factors of the learning rate.
        taps: the layers behind which its slots begin, by the number of layers; none for before all layers.
        **settings: its numbers but K.
    """
    return Course(
        architecture=architecture,
        taps=taps,
        settings=lambda config: {"guesses": GUESSES, **settings},
        start=unbound,
        unroll=unbound,
        product=product,
        steps=GUESSES,
        recurrent=False,
        rates=rates,
        in_model=in_model,
    )


PPD = _course("ppd", {"table": TABLE_RATE})
LEXICAL_UNITS = _course("lexical_units", {"table": TABLE_RATE}, shared=1)
HIDDEN_TRANSFER = _course("hidden_transfer", {}, _behind_each)
SPECULATIVE_STREAMING = _course("speculative_streaming", {"table": TABLE_RATE}, _behind_one, rank=RANK)
