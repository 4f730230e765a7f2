"""From logits to distributions, and from distributions to tokens.

V  vocabulary
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from numbers import Integral, Real
from typing import Protocol

import numpy as np

from .errors import PromptError


class Rng(Protocol):
    """The source of all random decisions of drafters and acceptance rules, so that a test can enumerate them."""

    def pick(self, probs_V: np.ndarray) -> int:
        """Return an index, each with the probability that `probs_V` gives it. The sum of `probs_V` need not be 1."""

    def bernoulli(self, probability: float) -> bool:
        """Return True with this probability."""


class SeededRng:
    """An Rng over numpy's generator. A seed makes it repeatable; None draws a seed."""

    def __init__(self, seed: int | None = None) -> None:
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, Integral)):
            raise PromptError(f"seed {seed!r} is not an integer; give 0 or more")
        if seed is not None and seed < 0:
            raise PromptError(f"seed {seed} is negative; give 0 or more")
        self.generator = np.random.default_rng(seed)

    def pick(self, probs_V: np.ndarray) -> int:
        cumulative = np.cumsum(probs_V)
        index = int(np.searchsorted(cumulative, self.generator.random() * cumulative[-1], side="right"))
        if index < len(probs_V) and probs_V[index]:
            return index
        # Rounding led past the end, or to a token that is impossible: take the last possible one.
        return int(np.flatnonzero(probs_V)[-1])

    def bernoulli(self, probability: float) -> bool:
        return bool(self.generator.random() < probability)


@dataclass(frozen=True)
class Sampling:
    """How a request chooses tokens.

    Attributes:
        temperature: 0 is greedy, 1 the model's own distribution.
        top_p: sample from the smallest set of tokens with this probability; 1 cuts nothing.
        top_k: sample from the k likeliest tokens; 0 cuts nothing.
        rng: the source of random decisions.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    rng: Rng = field(default_factory=SeededRng)

    def __post_init__(self) -> None:
        for name, kind in {"temperature": Real, "top_p": Real, "top_k": Integral}.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, kind):
                raise PromptError(f"{name} {value!r} is not {'an integer' if kind is Integral else 'a number'}")
        if not self.temperature >= 0:
            raise PromptError(
                f"temperature {self.temperature} is not 0 or more; 0 is greedy, 1 the model's own distribution"
            )
        if not 0 < self.top_p <= 1:
            raise PromptError(f"top_p {self.top_p} is not in (0, 1]; 1 cuts nothing")
        if self.top_k < 0:
            raise PromptError(f"top_k {self.top_k} is negative; 0 cuts nothing")

    @cached_property
    def greedy(self) -> bool:
        """Whether the request takes the likeliest token always."""
        return self.temperature == 0

    def probs(self, logits_V: np.ndarray) -> np.ndarray:
        """Return the distribution to sample from, [V] float64.

        It is the softmax at the temperature, cut to the `top_k` likeliest tokens, then to the smallest set of them that
        has probability `top_p`.
        """
        count = self.top_k if 0 < self.top_k < len(logits_V) else len(logits_V)
        ids = _likeliest(logits_V, count, self.temperature)
        numbers = logits_V[ids].astype(np.float64)
        numbers -= logits_V.max()
        numbers /= self.temperature
        np.exp(numbers, out=numbers)
        if count < len(logits_V):
            _keep_largest(numbers, count, np.partition(numbers, -count)[-count])
        probs_V = numbers if isinstance(ids, slice) else np.zeros(len(logits_V))
        probs_V[ids] = numbers
        numbers /= probs_V.sum()
        if self.top_p < 1:
            _keep_mass(numbers, self.top_p)
            probs_V[ids] = numbers
            numbers /= probs_V.sum()
        probs_V[ids] = numbers
        return probs_V

    def children(self, probs_V: np.ndarray, count: int) -> list[int]:
        """Draw up to `count` distinct tokens one after another, without replacement."""
        rest = probs_V.copy()
        tokens: list[int] = []
        while len(tokens) < count and rest.sum() > 0:
            tokens.append(self.rng.pick(rest / rest.sum()))
            rest[tokens[-1]] = 0
        return tokens


def _likeliest(logits_V: np.ndarray, count: int, temperature: float) -> np.ndarray | slice:
    """Return the tokens among which the `count` likeliest are, in ascending order; a slice if these are all tokens.

    Logits that differ in their last bits may have equal probabilities, and then the token decides. So logits that are
    a little smaller than the last one that counts are returned too.
    """
    if count == len(logits_V):
        return slice(None)
    least = np.partition(logits_V, -count)[-count] - 1e-6 * temperature
    return np.flatnonzero(logits_V >= least)


def _keep_largest(numbers_V: np.ndarray, count: int, least: float) -> None:
    """Set all numbers to 0 but the largest ones. Of equal numbers, those with the lowest index count as larger.

    Args:
        numbers_V: the numbers, 0 or more; changed in place.
        count: how many stay.
        least: the smallest of those that stay.
    """
    above = np.count_nonzero(numbers_V > least)
    equal = np.flatnonzero(numbers_V == least)
    numbers_V[numbers_V < least] = 0
    numbers_V[equal[count - above :]] = 0


def _keep_mass(probs_V: np.ndarray, mass: float) -> None:
    """Set all probabilities to 0 but the smallest set of largest ones whose sum reaches `mass`; in place.

    A sort of all V numbers would take most of the time of a sample. The numbers up to `floor` have half of 1 - mass
    together at most, so the others reach `mass`, and only those are sorted. If rounding errors are as large as
    1 - mass, all numbers are sorted.
    """
    for floor in ((1 - mass) / (2 * len(probs_V)), 0.0):
        descending = -np.sort(-probs_V[probs_V > floor])
        surplus = np.cumsum(descending) - descending >= mass
        if surplus.any():
            count = int(surplus.argmax())
            _keep_largest(probs_V, count, descending[count - 1])
            return
