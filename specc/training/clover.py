"""Train heads that attend to the drafted token (Xiao et al. 2024, Clover, arXiv:2405.00263, and -2, arXiv:2408.00264).

Clover-2's paper also lets the guess regress on the model's next state. Here the probabilities are all that is learned.
"""

from __future__ import annotations

from typing import Any

from specc.training.eagle3 import layer_settings
from specc.training.sequential import course_of


def _settings(config: Any) -> dict[str, float]:
    return {**layer_settings(config), "layers": 1, "parts": config.num_attention_heads}


def _settings_2(config: Any) -> dict[str, float]:
    return {**_settings(config), "layers": 2, "cosine": 1, "hidden": config.hidden_size}


COURSE = course_of("clover", _settings)
CLOVER_2 = course_of("clover_2", _settings_2)
