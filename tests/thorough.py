"""The part of a test's range that `make quick` takes, and the part that `make test` leaves to `-m slow`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import pytest


def sample(values: Iterable[Any], count: int) -> list[Any]:
    """Return parameters for a test, of which all but the first `count` have the mark `thorough`.

    Args:
        values: the whole range, in the order in which it is taken.
        count: how many of them `make quick` runs.
    """
    rest: Iterator[Any] = iter(values)
    return [*islice(rest, count), *(pytest.param(value, marks=pytest.mark.thorough) for value in rest)]


def slow(*values: Any) -> list[Any]:
    """Return parameters for a test with the mark `slow`: each is near one that `make test` runs."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]
