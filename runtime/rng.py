"""Random decisions that depend on the seed and on the place of the decision, never on the decisions before it.

All numbers come from SplitMix64 (Steele, Lea, Flood 2014): number i of a key is a hash of key + (i + 1) * GAMMA. So any
number is computed alone, and many are computed at once. A key is itself a number: of the seed's key, then of the
position in the text, then of the use.

    V  vocabulary
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from enum import IntEnum
from functools import lru_cache
from numbers import Integral
from typing import Protocol

import numpy as np

from .errors import PromptError

GAMMA = 0x9E3779B97F4A7C15
FACTORS = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
BITS = 2**64 - 1
BLOCK = 8192  # numbers that are hashed at a time, so that they stay in the processor's caches


class Use(IntEnum):
    """The purpose of a random decision at a position of the text. Decisions of different purposes are independent."""

    TOKEN = 0  # which token the target samples
    DRAFT = 1  # which token a drafter samples
    ACCEPT = 2  # whether a drafted token is accepted


class Rng(Protocol):
    """The source of all random decisions of drafters and acceptance rules, so that a test can enumerate them."""

    def at(self, position: int, use: Use, slot: int = 0) -> Rng:
        """Return the rng of one decision. Its draws depend on the seed and on the arguments alone.

        Args:
            position: the index in the text of the token that is decided.
            use: what is decided.
            slot: the slot of a draft, where several slots decide about one position.
        """

    def pick(self, probs_V: np.ndarray) -> int:
        """Return an index, each with the probability that `probs_V` gives it. The sum of `probs_V` need not be 1."""

    def place(self, ends_N: np.ndarray) -> int:
        """Return an index i with probability (ends_N[i] - ends_N[i - 1]) / ends_N[-1]; the sum before the first is 0.

        It takes one number and a binary search, where `pick` takes a number for each index.

        Args:
            ends_N: running sums of weights, [N] float64.
        """

    def bernoulli(self, probability: float) -> bool:
        """Return True with this probability."""

    def bernoulli_near(self, estimate: float, error: float, exact: Callable[[], float]) -> bool:
        """Return True with the probability `exact()`, which is asked for only where the estimate does not decide.

        Args:
            estimate: that probability, but for an error. It may be above 1.
            error: the largest error, as a share of the estimate.
            exact: returns the probability.
        """

    def exponential(self) -> float:
        """Return an exponential number with the mean 1."""


class SeededRng:
    """An Rng of hashed numbers. A seed makes it repeatable; None draws a seed.

    Draws of one object are independent: they are numbered.
    """

    _key: int
    _draws: int

    def __init__(self, seed: int | None = None) -> None:
        if seed is None:
            seed = secrets.randbits(64)
        if isinstance(seed, bool) or not isinstance(seed, Integral):
            raise PromptError(f"seed {seed!r} is not an integer; give 0 or more")
        if seed < 0:
            raise PromptError(f"seed {seed} is negative; give 0 or more")
        self._key = 0
        for shift in range(0, max(1, int(seed).bit_length()), 64):
            self._key = _number(self._key, int(seed) >> shift & BITS)
        self._draws = 0

    def at(self, position: int, use: Use, slot: int = 0) -> SeededRng:
        rng: SeededRng = object.__new__(type(self))  # copy.copy takes several times as long.
        rng.__dict__.update(self.__dict__)
        rng._key, rng._draws = _number(_number(_number(self._key, position), use), slot), 0
        return rng

    def pick(self, probs_V: np.ndarray) -> int:
        """Return the index with the smallest E / probability, where E is exponential noise.

        This is Gumbel's trick: it minimises -log of the usual score. The noise of an index depends on the index alone.
        So rounding errors of the probabilities change the choice only if two scores are that close, and a cut of the
        distribution changes it only if the chosen index is cut.

        For noise v, uniform in (0, 1), E = -log(1 - v) >= v. So only indices with v / probability up to the score of
        some index can win, and few logarithms are computed.
        """
        possible = probs_V != 0  # Probabilities that are not numbers leave something to choose from.
        is_all = np.count_nonzero(possible) == len(probs_V)
        indices = _all(len(probs_V)) if is_all else np.flatnonzero(possible)
        p = probs_V if is_all else probs_V[indices]
        noise = self._uniforms(indices)
        with np.errstate(over="ignore"):  # a denormal probability
            least_scores = noise / p
            best = int(least_scores.argmin())
            # Written so that probabilities that are not numbers leave something to choose from.
            near = np.flatnonzero(~(least_scores > -np.log1p(-noise[best]) / p[best]))
            scores = -np.log1p(-noise[near]) / p[near]
        return int(indices[near[scores.argmin()]])

    def place(self, ends_N: np.ndarray) -> int:
        total = ends_N[-1]
        index = int(ends_N.searchsorted(self._uniform() * total, side="right"))
        if index == len(ends_N):  # The product was rounded up, or the sums are not numbers.
            index = int((ends_N == total).argmax())
        return index

    def bernoulli(self, probability: float) -> bool:
        return bool(self._uniform() < probability)

    def bernoulli_near(self, estimate: float, error: float, exact: Callable[[], float]) -> bool:
        number = self._uniform()
        if number < estimate * (1 - error):
            return True
        return number < estimate * (1 + error) and bool(number < exact())

    def exponential(self) -> float:
        return float(-np.log1p(-self._uniform()))

    def _uniform(self) -> float:
        """Return a number in (0, 1), a new one at each call: the first of those that `_uniforms` would return."""
        key = _number(self._key, self._draws)
        self._draws += 1
        return ((_number(key, 0) >> 12) + 0.5) * 2.0**-52

    def _uniforms(self, indices: np.ndarray) -> np.ndarray:
        """Return a number in (0, 1) for each index, all of them new at each call."""
        key = _number(self._key, self._draws)
        self._draws += 1
        return uniforms(key, indices)


def uniforms(key: int, indices: np.ndarray) -> np.ndarray:
    """Return the numbers of a key at some indices: multiples of 2**-53 in (0, 1), uniform, float64."""
    result, other = np.empty(len(indices)), np.empty(min(BLOCK, len(indices)), np.uint64)
    is_all = indices is _all(len(indices))
    steps = _steps(len(indices)) if is_all else (indices.astype(np.uint64) + 1) * np.uint64(GAMMA)
    for start in range(0, len(indices), BLOCK):
        z: np.ndarray = steps[start : start + BLOCK] + np.uint64(key)
        shifted = other[: len(z)]
        for shift, factor in zip((30, 27), FACTORS, strict=True):
            z ^= np.right_shift(z, shift, out=shifted)
            z *= factor
        z ^= np.right_shift(z, 31, out=shifted)
        z >>= 12
        np.add(z, 0.5, out=result[start : start + BLOCK])
    result *= 2.0**-52
    return result


def _number(key: int, index: int) -> int:
    """Return number `index` of a key, 64 bits."""
    z = (key + (index + 1) * GAMMA) & BITS
    for shift, factor in zip((30, 27), FACTORS, strict=True):
        z = (z ^ (z >> shift)) * factor & BITS
    return z ^ (z >> 31)


@lru_cache(4)
def _all(size: int) -> np.ndarray:
    """Return the indices of a whole vocabulary."""
    return np.arange(size)


@lru_cache(4)
def _steps(size: int) -> np.ndarray:
    """Return (index + 1) * GAMMA for each index of a whole vocabulary."""
    return (np.arange(size, dtype=np.uint64) + 1) * np.uint64(GAMMA)
