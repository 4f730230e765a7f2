"""Train heads that read the drafted tokens before them (Ankner et al. 2024, Hydra and Hydra++, arXiv:2402.05109).

Both learn the model's probabilities: the paper's teacher loss, which it has for Hydra++ alone. There is neither dropout
nor noise on the states.
"""

from __future__ import annotations

from typing import Any

from specc.training.course import Course
from specc.training.eagle3 import layer_settings
from specc.training.sequential import RATES, STEPS, eps_of, last_layer, product, start, unroll


def _settings(config: Any) -> dict[str, float]:
    return {"depths": STEPS, "hidden": config.hidden_size, "eps": eps_of(config)}


def _plus_plus_settings(config: Any) -> dict[str, float]:
    return {**layer_settings(config), **_settings(config), "layers": 1, "mlp_layers": 4}


COURSE = Course(
    architecture="hydra",
    taps=last_layer,
    settings=_settings,
    start=start,
    unroll=unroll,
    product=product,
    steps=STEPS,
    recurrent=True,
    rates=RATES,
)
PLUS_PLUS = Course(
    architecture="hydra_plus_plus",
    taps=last_layer,
    settings=_plus_plus_settings,
    start=start,
    unroll=unroll,
    product=product,
    steps=STEPS,
    recurrent=True,
    rates=RATES,
)
