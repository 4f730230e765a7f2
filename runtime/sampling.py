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
        below_max = logits_V.astype(np.float64) - logits_V.max()
        probs: np.ndarray = np.exp(below_max / self.temperature)
        if self.top_k and self.top_k < len(probs):
            probs[np.argsort(-probs, kind="stable")[self.top_k :]] = 0
        probs /= probs.sum()
        if self.top_p < 1:
            order = np.argsort(-probs, kind="stable")
            before = np.cumsum(probs[order]) - probs[order]
            probs[order[before >= self.top_p]] = 0
            probs /= probs.sum()
        return probs

    def children(self, probs_V: np.ndarray, count: int) -> list[int]:
        """Draw up to `count` distinct tokens one after another, without replacement."""
        rest = probs_V.copy()
        tokens: list[int] = []
        while len(tokens) < count and rest.sum() > 0:
            tokens.append(self.rng.pick(rest / rest.sum()))
            rest[tokens[-1]] = 0
        return tokens
