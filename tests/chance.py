"""Exact and statistical checks of distributions.

`distribution` runs something random once for every way in which its decisions can fall, and adds up the probabilities.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import numpy as np

T = TypeVar("T", bound=Hashable)
NEVER = 1e-15  # probabilities that are rounding, not a branch


class Script:
    """Chance that takes given decisions, then the first possible one each time; what it did not take is `left`."""

    def __init__(self, decisions: tuple[int, ...]) -> None:
        self.given = decisions
        self.path: tuple[int, ...] = ()
        self.left: list[tuple[int, ...]] = []
        self.probability = 1.0

    def pick(self, probs_V: np.ndarray) -> int:
        return self._take((probs_V / probs_V.sum()).tolist())

    def bernoulli(self, probability: float) -> bool:
        assert 0 <= probability <= 1
        return bool(self._take([1 - float(probability), float(probability)]))

    def _take(self, probs: list[float]) -> int:
        taken = len(self.path)
        if taken < len(self.given):
            choice = self.given[taken]
        else:
            choice, *others = (i for i, p in enumerate(probs) if p > NEVER)
            self.left += [(*self.path, other) for other in others]
        self.path += (choice,)
        self.probability *= probs[choice]
        return choice


def distribution(run: Callable[[Script], T]) -> dict[T, float]:
    """The probability of each result of `run`, which makes all its decisions by the chance that it is given."""
    total: defaultdict[T, float] = defaultdict(float)
    todo: list[tuple[int, ...]] = [()]
    while todo:
        chance = Script(todo.pop())
        total[run(chance)] += chance.probability
        todo += chance.left
    assert abs(sum(total.values()) - 1) < 1e-9
    return dict(total)


def total_variation(a: Mapping[T, float], b: Mapping[T, float]) -> float:
    return sum(abs(a.get(k, 0) - b.get(k, 0)) for k in a.keys() | b.keys()) / 2


def chi_square_rejects(counts: Mapping[T, int], probs: Mapping[T, float]) -> bool:
    """Whether such counts have a chance of less than one in a million under `probs`.

    Results that are expected fewer than five times are taken together. The threshold is Wilson and Hilferty's.
    """
    n = sum(counts.values())
    assert n
    if any(not probs.get(k) for k in counts):
        return True
    rare = {k for k, p in probs.items() if p * n < 5}
    cells = [(counts.get(k, 0), p * n) for k, p in probs.items() if k not in rare]
    if (expected := sum(probs[k] for k in rare) * n) >= 5:
        cells.append((sum(counts.get(k, 0) for k in rare), expected))
    freedom = len(cells) - 1
    statistic = sum((seen - expected) ** 2 / expected for seen, expected in cells)
    spread = 2 / (9 * freedom)
    return bool(statistic > freedom * (1 - spread + 4.7534 * spread**0.5) ** 3)
