"""How many texts a training keeps for its evaluation."""

from __future__ import annotations

import warnings

from specc.runtime.errors import SpeccWarning
from specc.training import processes


def held_out_count(number: int, count: int, what: str = "prompts") -> int:
    """Return how many texts are held out: those that are asked for, but at most a fifth of all, and at least one.

    A warning says if these are fewer than were asked for.

    Args:
        number: the value of --held-out.
        count: the number of all texts.
        what: names them, for the warning.
    """
    held_out = min(number, max(1, count // 5))
    if held_out < number and processes.is_first():
        warnings.warn(
            f"{held_out} of {count} {what} are held out, not {number}: it is a fifth at most; give more prompts, or a "
            "smaller --held-out",
            SpeccWarning,
            stacklevel=2,
        )
    return held_out
