"""Train a mixture of attentions (Zimmer et al. 2024, arXiv:2410.03804).

Each depth reads the states of as many tokens before as a draft of that depth has: the paper's T-step bounded training.
The paper's text is a data set. Here it is the model's own answers, whose probabilities are learned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from specc.heads import Head
from specc.heads.mixture_of_attentions import MixtureOfAttentions
from specc.training.batches import Batch
from specc.training.closed_form import start_products, zero_layers
from specc.training.course import Course
from specc.training.eagle3 import layer_settings
from specc.training.shards import Recording
from specc.training.teacher import Teacher
from specc.training.unroll import DraftAttention, later, layer_logits

MOST_TAPS = 6
STEPS = 4


def taps_of(layers: int) -> tuple[int, ...]:
    """Return layers in even distances, the last one included, or all layers of a small model."""
    count = min(layers, MOST_TAPS)
    return (*(layers * (number + 1) // count - 1 for number in range(count - 1)), -1)


@torch.no_grad()
def _start(head: Head, teacher: Teacher, recordings: Sequence[Recording]) -> None:
    """Start both input products from a closed form, the last product from the model's, and all attention at zero."""
    assert isinstance(head, MixtureOfAttentions) and head.head is not None and head.norm is not None
    start_products(head, teacher, recordings)
    nn.init.zeros_(head.mix.weight)
    zero_layers(head)


def unroll(head: Head, batch: Batch, steps: int) -> list[Tensor]:
    """Run the layers at each depth beside the last state that the model gave before the draft."""
    assert isinstance(head, MixtureOfAttentions)
    tokens, positions = batch.tokens[:, 1:], torch.arange(batch.slots)[None]
    attention: list[Any] = [DraftAttention() for _ in head.layers]
    state = head.fuse(batch.states[:, :-1].float())
    return [head.run_layers(tokens, positions, later(state, step), attention) for step in range(steps)]


COURSE = Course(
    architecture="mixture_of_attentions",
    taps=taps_of,
    settings=layer_settings,
    start=_start,
    unroll=unroll,
    product=layer_logits,
    steps=STEPS,
    recurrent=True,
    rates={"fc": 0.15, "token": 0.15, "norm": 0.1, "head": 0.1},
)
