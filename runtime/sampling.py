"""From logits to distributions, and from distributions to tokens.

V  vocabulary
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np

from .errors import PromptError


class Rng(Protocol):
    """Where every random decision of drafters and acceptance rules comes from, so that a test can enumerate them."""

    def pick(self, probs_V: np.ndarray) -> int:
        """An index, with the probability that `probs_V` gives it."""

    def bernoulli(self, probability: float) -> bool: ...


class SeededRng:
    """Chance by a seeded generator."""

    def __init__(self, seed: int | None = None) -> None:
        if seed is not None and seed < 0:
            raise PromptError(f"seed {seed} is negative; give 0 or more")
        self.generator = np.random.default_rng(seed)

    def pick(self, probs_V: np.ndarray) -> int:
        cumulative = np.cumsum(probs_V)
        at = int(np.searchsorted(cumulative, self.generator.random() * cumulative[-1], side="right"))
        return min(at, int(np.flatnonzero(probs_V)[-1])) if at >= len(probs_V) or not probs_V[at] else at

    def bernoulli(self, probability: float) -> bool:
        return bool(self.generator.random() < probability)


@dataclass(frozen=True)
class Sampling:
    """How a request chooses tokens. Temperature 0 is greedy; `top_k` 0 and `top_p` 1 cut nothing."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    rng: Rng = field(default_factory=SeededRng)

    def __post_init__(self) -> None:
        if not self.temperature >= 0:
            raise PromptError(
                f"temperature {self.temperature} is negative; 0 is greedy, 1 the model's own distribution"
            )
        if not 0 < self.top_p <= 1:
            raise PromptError(f"top_p {self.top_p} is not in (0, 1]; 1 cuts nothing")
        if self.top_k < 0:
            raise PromptError(f"top_k {self.top_k} is negative; 0 cuts nothing")

    @cached_property
    def greedy(self) -> bool:
        return self.temperature == 0

    def probs(self, logits_V: np.ndarray) -> np.ndarray:
        """[V] float64: softmax at the temperature, cut to `top_k`, then to the smallest set of mass `top_p`."""
        below = logits_V.astype(np.float64) - logits_V.max()
        probs: np.ndarray = np.exp(below / self.temperature)
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
        """Up to `count` distinct tokens drawn one after another, without replacement."""
        left = probs_V.copy()
        drawn: list[int] = []
        while len(drawn) < count and left.sum() > 0:
            drawn.append(self.rng.pick(left / left.sum()))
            left[drawn[-1]] = 0
        return drawn
