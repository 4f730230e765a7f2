"""From logits to distributions, and from distributions to tokens.

V  vocabulary
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from math import inf
from numbers import Integral, Real
from typing import Any

import numpy as np

from .errors import PromptError
from .rng import Rng, SeededRng, Use


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
        for name, kind in {"temperature": Real, "top_p": Real, "top_k": Integral, "min_p": Real}.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, kind):
                raise PromptError(f"{name} {value!r} is not {'an integer' if kind is Integral else 'a number'}")
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
        with np.errstate(over="ignore"):  # At a tiny temperature all but the likeliest become -inf, as they should.
            numbers /= self.temperature
        np.exp(numbers, out=numbers)
        if count < size:
            kept = _largest(numbers, count, np.partition(numbers, -count)[-count])
            ids, numbers = ids[kept], numbers[kept]
        numbers /= _spread(numbers, ids, size).sum()
        if self.top_p < 1:
            kept = _of_mass(numbers, self.top_p)
            ids, numbers = kept if isinstance(ids, slice) else ids[kept], numbers[kept]
            numbers /= _spread(numbers, ids, size).sum()
        if self.min_p > 0:
            numbers = np.where(numbers < self.min_p * numbers.max(), 0.0, numbers)
            numbers /= _spread(numbers, ids, size).sum()
        return _spread(numbers, ids, size)

    def children(self, probs_V: np.ndarray, count: int, position: int, slot: int) -> list[int]:
        """Draw up to `count` distinct tokens one after another, without replacement.

        Args:
            probs_V: the distribution.
            count: how many tokens.
            position: the index of these tokens in the text.
            slot: the slot of the draft whose children they are.
        """
        rest, rng = probs_V.copy(), self.rng.at(position, Use.DRAFT, slot)
        tokens: list[int] = []
        while len(tokens) < count and rest.sum() > 0:
            tokens.append(rng.pick(rest / rest.sum()))
            rest[tokens[-1]] = 0
        return tokens


def _likeliest(logits_V: np.ndarray, count: int, temperature: float) -> Any:
    """Return the tokens among which the `count` likeliest are, in ascending order; a slice if these are all tokens.

    Logits that differ in their last bits may have equal probabilities, and then the token decides. So logits that are
    a little smaller than the last one that counts are returned too.
    """
    if count == len(logits_V):
        return slice(None)
    least = np.partition(logits_V, -count)[-count] - 1e-6 * temperature
    return np.flatnonzero(~(logits_V < least))  # Numbers that are NaN stay.


def _spread(numbers: np.ndarray, ids: Any, size: int) -> np.ndarray:
    """Return an array of `size` numbers that holds `numbers` at `ids`, and 0 elsewhere."""
    if len(numbers) == size:
        return numbers
    spread_V = np.zeros(size)
    spread_V[ids] = numbers
    return spread_V


def _largest(numbers: np.ndarray, count: int, least: float) -> np.ndarray:
    """Return the indices of the `count` largest numbers, in ascending order. Of equal numbers the first ones count.

    Args:
        numbers: the numbers.
        count: how many.
        least: the smallest of the largest ones.
    """
    indices = np.flatnonzero(~(numbers < least))  # Numbers that are NaN stay.
    equal = np.flatnonzero(numbers[indices] == least)
    return np.delete(indices, equal[len(equal) - (len(indices) - count) :])


def _of_mass(probs: np.ndarray, mass: float) -> np.ndarray:
    """Return the indices of the smallest set of largest probabilities whose sum reaches `mass`, in ascending order.

    A sort of a whole vocabulary would take most of the time of a sample. The numbers up to `floor` have half of
    1 - mass together at most, so the others reach `mass`, and only those are sorted. If rounding errors are as large
    as 1 - mass, all numbers are sorted.
    """
    for floor in ((1 - mass) / (2 * len(probs)), 0.0):
        descending = np.sort(probs[probs > floor])[::-1]
        surplus = np.cumsum(descending) - descending >= mass
        if surplus.any():
            count = int(surplus.argmax())
            return _largest(probs, count, descending[count - 1])
    return np.flatnonzero(probs)
