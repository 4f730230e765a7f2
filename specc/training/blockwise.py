"""Train heads of one hidden layer under the model's last product (Stern et al. 2018, Blockwise, arXiv:1811.03115).

The model is frozen, as in the paper's first variant. Each update trains all guesses, and the paper picks one at random.
"""

from __future__ import annotations

from typing import Any

from specc.training.course import Course
from specc.training.stacked import HEADS, product, start, unroll


def _settings(config: Any) -> dict[str, float]:
    return {
        "heads": HEADS,
        "hidden": HEADS * config.hidden_size,
        "eps": float(getattr(config, "rms_norm_eps", 1e-6)),
    }


COURSE = Course(
    architecture="blockwise",
    taps=lambda layers: (-1,),
    settings=_settings,
    start=start,
    unroll=unroll,
    product=product,
    steps=HEADS,
    recurrent=False,
    rates={"head": 0.1, "norm": 0.1},
)
