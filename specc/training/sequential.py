"""Train heads that draft one token a call from the drafted tokens before it: what their courses have in common.

All learn the model's probabilities, and drafts stand on drafts while they train, as in EAGLE-3's training-time test.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from specc.heads import Head
from specc.heads.sequential import Sequential
from specc.training.batches import Batch
from specc.training.closed_form import start_products
from specc.training.course import Course
from specc.training.shards import Recording
from specc.training.teacher import Teacher
from specc.training.unroll import DraftAttention

STEPS = 4
RATES = {"fc": 0.15, "token": 0.15, "own": 0.15, "norm": 0.1, "head": 0.1}


def last_layer(layers: int) -> tuple[int, ...]:
    """Return the tap that all of these papers read: the last state."""
    return (-1,)


def eps_of(config: Any) -> float:
    """Return the small number of the model's norms."""
    return float(getattr(config, "rms_norm_eps", 1e-6))


@torch.no_grad()
def start(head: Head, teacher: Teacher, recordings: Sequence[Recording]) -> None:
    """Start the guess from a closed form, the last product from the model's, and all corrections at zero."""
    assert isinstance(head, Sequential)
    start_products(head, teacher, recordings)
    layers = [product.weight for layer in head.decoder_layers() for product in (layer.output, layer.down)]
    for parameter in (*head.added(), *layers):
        parameter.zero_()


def unroll(head: Head, batch: Batch, steps: int) -> list[Tensor]:
    """Run the decoder layers on the model's states, then the recurrence on its own, one slot later each time."""
    assert isinstance(head, Sequential)
    tokens, positions = batch.tokens[:, 1:], torch.arange(batch.slots)[None]
    attention: list[Any] = [DraftAttention() for _ in head.layers]
    state = head.run_layers(positions, head.fuse(batch.states[:, :-1].float()), attention)
    guesses: list[Tensor] = []
    for step in range(steps):
        if step:
            state = functional.pad(state[:, :-1], (0, 0, 1, 0))
        x, state = head.step(tokens, state)
        guesses.append(x)
    return guesses


def product(head: Head, depth: int, rows: Tensor) -> Tensor:
    """Return the logits [M, V'] from rows [M, d] of what `unroll` returned."""
    assert isinstance(head, Sequential)
    return head.logits(rows)


def course_of(architecture: str, settings: Callable[[Any], dict[str, float]]) -> Course:
    """Return how heads of this kind are trained. They differ by their layers alone.

    Args:
        architecture: a key of `specc.heads.ARCHITECTURES`.
        settings: the numbers of the architecture, by the model's configuration.
    """
    return Course(
        architecture=architecture,
        taps=last_layer,
        settings=settings,
        start=start,
        unroll=unroll,
        product=product,
        steps=STEPS,
        recurrent=True,
        rates=RATES,
    )
