"""Numbers that users give, of whatever type."""

from __future__ import annotations

from math import inf
from numbers import Real
from typing import Any


def real(value: Any) -> float | None:
    """Return a number of any type as a float, and as infinity if it is too large for one; None if it is no number."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    try:
        return float(value)
    except OverflowError:
        number: Any = value  # The type Real has no comparison with an int.
        return inf if number > 0 else -inf
