"""Train heads that read the drafted tokens before them (Ankner et al. 2024, Hydra and Hydra++, arXiv:2402.05109).

Both learn the model's probabilities: the paper's teacher loss, which it has for Hydra++ alone. There is neither dropout
nor noise on the states.
"""

from __future__ import annotations

from typing import Any

from specc.training.eagle3 import layer_settings
from specc.training.sequential import STEPS, course_of, eps_of


def _settings(config: Any) -> dict[str, float]:
    return {"depths": STEPS, "hidden": config.hidden_size, "eps": eps_of(config)}


def _plus_plus_settings(config: Any) -> dict[str, float]:
    return {**layer_settings(config), **_settings(config), "layers": 1, "mlp_layers": 4}


COURSE = course_of("hydra", _settings)
PLUS_PLUS = course_of("hydra_plus_plus", _plus_plus_settings)
