"""From logits to distributions, and from distributions to tokens.

V  vocabulary
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from math import inf
from numbers import Integral
from typing import Any

import numpy as np

from .draws import POOL, Draws, block_sums
from .errors import PromptError
from .real_number import real
from .rng import Rng, SeededRng

LEAST_TEMPERATURE = 1e-30  # that float32 can divide by
# Exponentials of logits are used as they are if their sum lies between these, so that float32 holds those that matter.
LEAST_TOTAL, MOST_TOTAL = 1e-15, 1e30
COLD = 0.6  # a temperature below which exponentials of usual logits are too large for float32
LEAST_WEIGHT = 1e-30  # of a token; those below have few digits
NEAR = 1e-4  # The bound of a probability's error in float32. 256 roundings make an error of 1.6e-5.
SORTED = 1 << 13  # numbers that are sorted at once; to halve as many takes as long


@dataclass(frozen=True)
class Sampling:
    """How a request chooses tokens.

    Attributes:
        temperature: 0 is greedy, 1 the model's own distribution.
        top_p: sample from the smallest set of tokens with this probability; 1 cuts nothing.
        top_k: sample from the k likeliest tokens; 0 cuts nothing.
        min_p: sample from the tokens with at least this share of the likeliest one's probability; 0 cuts nothing.
        rng: the source of random decisions.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    rng: Rng = field(default_factory=SeededRng)

    def __post_init__(self) -> None:
        for name in ("temperature", "top_p", "min_p"):
            number = real(getattr(self, name))
            if number is None:
                raise PromptError(f"{name} {getattr(self, name)!r} is not a number")
            object.__setattr__(self, name, number)  # numpy cannot divide by a Fraction.
        if isinstance(self.top_k, bool) or not isinstance(self.top_k, Integral):
            raise PromptError(f"top_k {self.top_k!r} is not an integer")
        if not 0 <= self.temperature < inf:
            raise PromptError(
                f"temperature {self.temperature} is not a finite number of 0 or more; "
                "0 is greedy, 1 the model's own distribution"
            )
        if not 0 < self.top_p <= 1:
            raise PromptError(f"top_p {self.top_p} is not in (0, 1]; 1 cuts nothing")
        if self.top_k < 0:
            raise PromptError(f"top_k {self.top_k} is negative; 0 cuts nothing")
        if not 0 <= self.min_p <= 1:
            raise PromptError(f"min_p {self.min_p} is not in [0, 1]; 0 cuts nothing")

    @cached_property
    def greedy(self) -> bool:
        """Whether the request takes the likeliest token always."""
        return self.temperature == 0

    @cached_property
    def cuts_nothing(self) -> bool:
        """Tell whether every token may be chosen."""
        return self.top_k == 0 and self.top_p == 1 and self.min_p == 0

    def near_probability(self, logits_V: np.ndarray, token: int) -> float | None:
        """Return the probability of a token, with an error of `NEAR` of it at most. It costs a third of `probs`.

        Returns:
            None if the logits are so large or so small, or the distribution is cut, that only `probs` can tell.
        """
        if not self.cuts_nothing:
            return None
        weights = POOL.take(len(logits_V))
        total = _exponentials(logits_V, self.temperature, weights)
        weight = float(weights[token])
        POOL.give(weights)
        return None if total is None or weight < LEAST_WEIGHT else weight / total

    def probs(self, logits_V: np.ndarray) -> np.ndarray:
        """Return the distribution to sample from, [V] float64.

        It is the softmax at the temperature, cut to the `top_k` likeliest tokens, then to the smallest set of them that
        has probability `top_p`, then to those with `min_p` of the largest probability: the order of transformers.
        """
        size = len(logits_V)
        count = self.top_k if 0 < self.top_k < size else size
        ids = _likeliest(logits_V, count, self.temperature)
        numbers = logits_V[ids].astype(np.float64)
        numbers -= logits_V.max()
        if self.temperature != 1:
            with np.errstate(over="ignore"):  # At a tiny temperature all but the likeliest become -inf, as they should.
                numbers /= self.temperature
        np.exp(numbers, out=numbers)
        if count < size:
            _keep_largest(numbers, count, np.partition(numbers, -count)[-count])
        probs_V = _spread(numbers, ids, size)
        probs_V /= probs_V.sum()
        if self.top_p < 1:
            _keep_mass(probs_V, self.top_p)
            probs_V /= probs_V.sum()
        if self.min_p > 0:
            probs_V[probs_V < self.min_p * probs_V.max()] = 0
            probs_V /= probs_V.sum()
        return probs_V

    def draws(self, logits_V: np.ndarray, rng: Rng) -> Draws:
        """Return draws from the distribution to sample from, for a drafter.

        It is that of `probs` but for the last bits of float32. A token at the edge of a cut may be in one of them and
        not in the other.

        Args:
            logits_V: logits, [V] float32.
            rng: the source of the draws.
        """
        size, ids = len(logits_V), None
        if self.cuts_nothing:
            weights = POOL.take(size)
            if _exponentials(logits_V, self.temperature, weights) is not None:
                return Draws(rng, weights, size)
            POOL.give(weights)
        if 0 < self.top_k < size:
            ids = np.flatnonzero(~(logits_V < np.partition(logits_V, -self.top_k)[-self.top_k]))
        weights = POOL.take(size) if ids is None else np.empty(len(ids), np.float32)
        np.subtract(logits_V if ids is None else logits_V[ids], logits_V.max(), out=weights)
        if self.temperature != 1:
            with np.errstate(over="ignore"):  # At a tiny temperature all but the likeliest become -inf.
                weights /= max(self.temperature, LEAST_TEMPERATURE)
        np.exp(weights, out=weights)
        if self.top_p < 1:
            large, probs = _nucleus(weights, self.top_p)
            POOL.give(weights)
            weights, ids = probs, large if ids is None else ids[large]
        if self.min_p > 0:
            weights[weights < self.min_p * weights.max()] = 0
        return Draws(rng, weights, size, ids)


def _exponentials(logits_V: np.ndarray, temperature: float, out_V: np.ndarray) -> float | None:
    """Write exp(logits / temperature) but for a factor, and return the sum.

    At usual temperatures the largest logit is not subtracted, which saves two passes over the vocabulary.

    Args:
        logits_V: logits, [V] float32.
        temperature: the temperature.
        out_V: gets the exponentials, [V] float32.

    Returns:
        None if the exponentials are too large or too small for float32, or are not numbers.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        if temperature < COLD:
            logits_V = np.subtract(logits_V, logits_V.max(), out=out_V)
        if temperature != 1:
            logits_V = np.multiply(logits_V, 1 / max(temperature, LEAST_TEMPERATURE), out=out_V)
        np.exp(logits_V, out=out_V)
        total = float(block_sums(out_V).sum())
    return total if LEAST_TOTAL < total < MOST_TOTAL else None


def _nucleus(weights: np.ndarray, mass: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of the larger weights, and their shares, float64: 0 for those outside the smallest set.

    Args:
        weights: the weights, 0 or more.
        mass: the share of all weights that the smallest set of largest weights reaches.
    """
    total = float(weights.sum(dtype=np.float64))
    # All that are left out have half of 1 - mass together at most.
    large = np.flatnonzero(~(weights < (1 - mass) / (2 * len(weights)) * total))
    shares = weights[large].astype(np.float64)
    shares /= total
    _keep_mass(shares, mass)
    return large, shares


def _likeliest(logits_V: np.ndarray, count: int, temperature: float) -> Any:
    """Return the tokens among which the `count` likeliest are, in ascending order; a slice if these are all tokens.

    Logits that differ in their last bits may have equal probabilities, and then the token decides. So logits that are
    a little smaller than the last one that counts are returned too. Of those that equal the last one that counts, the
    first `count` are enough.
    """
    if count == len(logits_V):
        return slice(None)
    last = np.partition(logits_V, -count)[-count]
    is_near = ~(logits_V < last - 1e-6 * temperature)  # Numbers that are NaN stay.
    is_equal = logits_V == last
    if np.count_nonzero(is_equal) > count:
        end = np.flatnonzero(is_equal)[count]
        is_near[end:] &= ~is_equal[end:]
    return np.flatnonzero(is_near)


def _spread(numbers: np.ndarray, ids: Any, size: int) -> np.ndarray:
    """Return an array of `size` numbers that holds `numbers` at `ids`, and 0 elsewhere."""
    if len(numbers) == size:
        return numbers
    spread_V = np.zeros(size)
    spread_V[ids] = numbers
    return spread_V


def _keep_largest(numbers: np.ndarray, count: int, least: float) -> None:
    """Set all but the `count` largest numbers to 0, in place. Of equal numbers the first ones stay.

    Args:
        numbers: the numbers, 0 or more.
        count: how many stay.
        least: the smallest of those that stay.
    """
    stays = ~(numbers < least)  # Numbers that are NaN stay.
    surplus = np.count_nonzero(stays) - count
    if surplus > 0:
        stays[np.flatnonzero(numbers == least)[-surplus:]] = False
    numbers *= stays


def _keep_mass(probs: np.ndarray, mass: float) -> None:
    """Set all but the smallest set of largest probabilities whose sum reaches `mass` to 0, in place.

    A sort of a whole vocabulary would take most of the time of a sample. The numbers up to `floor` have half of
    1 - mass together at most, so the others reach `mass`. These are halved until few are left around the last one that
    stays, and only those few are sorted.

    The result is that of a stable sort of all numbers and of a running sum, bit for bit. Where the rounding errors of
    sums could decide, all numbers are sorted.
    """
    floor = (1 - mass) / (2 * len(probs))
    is_large = probs > floor
    # To gather a large part of an array takes longer than to partition all of it.
    rest = probs[is_large] if 8 * np.count_nonzero(is_large) < len(probs) else probs.copy()
    above, count = 0.0, 0  # the sum and the number of those that are larger than `rest`
    while len(rest) > SORTED:
        half = len(rest) // 2
        rest.partition(half)
        larger = float(rest[half:].sum())
        if above + larger < mass:
            above, count, rest = above + larger, count + len(rest) - half, rest[:half]
        else:
            rest = rest[half:]
    descending = np.sort(rest)[::-1]
    before = above + np.cumsum(np.append(0.0, descending))
    error = 4 * len(probs) * np.finfo(np.float64).eps  # of a sum of all numbers, at most
    if not before[-1] >= mass or np.abs(before - mass).min() < error:
        descending = np.sort(probs)[::-1]
        before, count = np.cumsum(descending) - descending, 0
        if not before[-1] >= mass:
            return  # All stay. It is so, too, if numbers are NaN.
    stay = int((before >= mass).argmax())
    _keep_largest(probs, count + stay, descending[stay - 1])
