"""Exact and statistical checks of distributions."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping
from typing import TypeVar

import numpy as np

from specc.runtime.rng import Use

T = TypeVar("T", bound=Hashable)
TIMES = (0.1, 2.0)  # What an enumeration gives for exponential numbers, in turn with the decisions.
NEVER = 1e-15  # A smaller probability is a rounding error, not a branch.


class Script:
    """An Rng that follows a list of decisions, and then takes the first possible one each time.

    Attributes:
        path: the decisions so far.
        others: for each decision that was not on the list, the paths that end with another choice.
        probability: the probability of `path`.
    """

    def __init__(self, decisions: tuple[int, ...]) -> None:
        self.decisions = decisions
        self.path: tuple[int, ...] = ()
        self.others: list[tuple[int, ...]] = []
        self.probability = 1.0

    def at(self, position: int, use: Use, slot: int = 0) -> Script:
        """Return itself: a list of decisions covers all places."""
        return self

    def pick(self, probs_V: np.ndarray) -> int:
        return self._decide((probs_V / probs_V.sum()).tolist())

    def place(self, ends_N: np.ndarray) -> int:
        return self._decide((np.diff(ends_N, prepend=0) / ends_N[-1]).tolist())

    def bernoulli(self, probability: float) -> bool:
        assert 0 <= probability <= 1
        return bool(self._decide([1 - float(probability), float(probability)]))

    def bernoulli_near(self, estimate: float, error: float, exact: Callable[[], float]) -> bool:
        """Decide by the exact probability, which the estimate must be near."""
        probability = exact()
        assert abs(min(1.0, estimate) - probability) <= error * estimate
        return self.bernoulli(probability)

    def exponential(self) -> float:
        """Return a number that the decisions so far determine. An exact method is exact for any such numbers."""
        return TIMES[len(self.path) % len(TIMES)]

    def _decide(self, probs: list[float]) -> int:
        if len(self.path) < len(self.decisions):
            choice = self.decisions[len(self.path)]
        else:
            choice, *others = (i for i, p in enumerate(probs) if p > NEVER)
            self.others += [(*self.path, other) for other in others]
        self.path += (choice,)
        self.probability *= probs[choice]
        return choice


def distribution(run: Callable[[Script], T]) -> dict[T, float]:
    """Return the probability of each result of `run`, by running it once for each way in which its decisions can fall.

    Args:
        run: a function that makes all its random decisions by the Rng that it gets.
    """
    total: defaultdict[T, float] = defaultdict(float)
    paths: list[tuple[int, ...]] = [()]
    while paths:
        rng = Script(paths.pop())
        total[run(rng)] += rng.probability
        paths += rng.others
    assert abs(sum(total.values()) - 1) < 1e-9
    return dict(total)


def total_variation(a: Mapping[T, float], b: Mapping[T, float]) -> float:
    """Return the total variation distance of two distributions: 0 for equal ones, 1 for disjoint ones."""
    return sum(abs(a.get(k, 0) - b.get(k, 0)) for k in a.keys() | b.keys()) / 2


def chi_square_rejects(counts: Mapping[T, int], probs: Mapping[T, float]) -> bool:
    """Return whether such counts have a probability of less than one in a million under `probs`.

    Results that are expected fewer than five times are taken together. The threshold is Wilson and Hilferty's
    approximation of the chi-square quantile.
    """
    n = sum(counts.values())
    assert n
    if any(not probs.get(k) for k in counts):
        return True
    rare = {k for k, p in probs.items() if p * n < 5}
    cells = [(counts.get(k, 0), p * n) for k, p in probs.items() if k not in rare]
    expected_rare = sum(probs[k] for k in rare) * n
    if expected_rare >= 5:
        cells.append((sum(counts.get(k, 0) for k in rare), expected_rare))
    freedom = len(cells) - 1
    statistic = sum((count - expected) ** 2 / expected for count, expected in cells)
    spread = 2 / (9 * freedom)
    return bool(statistic > freedom * (1 - spread + 4.7534 * spread**0.5) ** 3)
