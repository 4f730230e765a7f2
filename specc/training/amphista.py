"""Train guesses that attend to each other (Li et al. 2024, Amphista, arXiv:2406.13170)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from specc.heads import Head
from specc.heads.amphista import Amphista
from specc.training.closed_form import solve
from specc.training.course import Course
from specc.training.eagle3 import layer_settings
from specc.training.sequential import RATES, last_layer
from specc.training.shards import Recording
from specc.training.stacked import HEADS, product, start_as_the_model, unroll
from specc.training.teacher import Teacher


def _settings(config: Any) -> dict[str, float]:
    settings = {"guesses": HEADS, "parts": config.num_attention_heads, "hidden": 2 * config.hidden_size}
    return {**layer_settings(config), **settings}


@torch.no_grad()
def _start(head: Head, teacher: Teacher, recordings: Sequence[Recording]) -> None:
    """Start all slots as the linear guess of the next state."""
    assert isinstance(head, Amphista)
    start_as_the_model(head, head.products(), teacher, recordings)
    fit = solve(recordings, teacher.embedding, len(head.taps), head.eps)
    head.fc.weight.copy_(fit.taps)
    head.token.weight.copy_(fit.token)
    head.last_norm.fill_(fit.scale)
    for parameter in head.added():
        parameter.zero_()


COURSE = Course(
    architecture="amphista",
    taps=last_layer,
    settings=_settings,
    start=_start,
    unroll=unroll,
    product=product,
    steps=HEADS,
    recurrent=False,
    rates=RATES,
)
