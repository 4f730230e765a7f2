"""Train a small recurrent network over the drafted tokens (Zhang et al. 2024, Recurrent Drafter, arXiv:2403.09919)."""

from __future__ import annotations

from typing import Any

from specc.training.course import Course
from specc.training.sequential import RATES, STEPS, eps_of, last_layer, product, start, unroll


def _settings(config: Any) -> dict[str, float]:
    size = config.hidden_size
    return {"recurrent": size, "hidden": 2 * size, "eps": eps_of(config)}


COURSE = Course(
    architecture="recurrent_drafter",
    taps=last_layer,
    settings=_settings,
    start=start,
    unroll=unroll,
    product=product,
    steps=STEPS,
    recurrent=True,
    rates=RATES,
)
