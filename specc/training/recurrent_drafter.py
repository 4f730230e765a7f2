"""Train a small recurrent network over the drafted tokens (Zhang et al. 2024, Recurrent Drafter, arXiv:2403.09919)."""

from __future__ import annotations

from typing import Any

from specc.training.sequential import course_of, eps_of


def _settings(config: Any) -> dict[str, float]:
    size = config.hidden_size
    return {"recurrent": size, "hidden": 2 * size, "eps": eps_of(config)}


COURSE = course_of("recurrent_drafter", _settings)
