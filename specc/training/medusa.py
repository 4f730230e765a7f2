"""Train heads over the last state, each for another token ahead (Cai et al. 2024, Medusa-1, arXiv:2401.10774)."""

from __future__ import annotations

from typing import Any

from specc.training.course import Course
from specc.training.stacked import HEADS, product, start, unroll


def _settings(config: Any) -> dict[str, float]:
    return {"heads": HEADS, "eps": float(getattr(config, "rms_norm_eps", 1e-6))}


COURSE = Course(
    architecture="medusa",
    taps=lambda layers: (-1,),
    settings=_settings,
    start=start,
    unroll=unroll,
    product=product,
    steps=HEADS,
    recurrent=False,
    rates={"heads": 0.1, "norm": 0.1},
)
