"""The part of a test's range that `make quick` takes. `make test` runs all of it."""

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
