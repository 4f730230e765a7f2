"""Draws from the distributions of a drafter, which cost less than the choice of a token by the target.

A draft of 64 slots is drawn from up to 63 distributions over the whole vocabulary, and a rule looks at few of them. So
a distribution is kept as weights in float32, a draw takes two binary searches, and the probabilities in float64 are
computed for the slots that a rule asks for. What is drawn has these probabilities exactly, which is all that a rule
needs: it need not be the softmax to the last bit. So the sums of blocks may be rounded to float32. The probability of a
token is then the share of its block by these sums, times its share of the block, which is computed in float64.

C  candidates, the tokens that can be drawn      V  vocabulary
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache

import numpy as np

from .rng import Rng

BLOCK = 256  # candidates whose weights are summed together
POOL_BYTES = 1 << 25  # 170 distributions of a vocabulary of 49152


class Pool:
    """Arrays of float32 that are used again.

    The system clears new memory of this size page by page, and that takes several times as long as the exponentials.
    """

    def __init__(self, most_bytes: int) -> None:
        """Keep nothing as yet.

        Args:
            most_bytes: bytes that are kept at most.
        """
        self._most, self._arrays = most_bytes, list[np.ndarray]()

    def take(self, size: int) -> np.ndarray:
        """Return an array of `size` numbers, whose values do not matter."""
        try:
            array = self._arrays.pop()
        except IndexError:
            return np.empty(size, np.float32)
        return array if len(array) == size else np.empty(size, np.float32)

    def give(self, array: np.ndarray) -> None:
        """Keep an array that is not used any more."""
        if (1 + len(self._arrays)) * array.nbytes <= self._most:
            self._arrays.append(array)


POOL = Pool(POOL_BYTES)


class Draws:
    """A distribution, and tokens drawn from it."""

    def __init__(self, rng: Rng, weights_C: np.ndarray, size: int, ids_C: np.ndarray | None = None) -> None:
        """Keep the distribution.

        Args:
            rng: the source of the draws.
            weights_C: the weight of each candidate, 0 or more, float32 or float64. They need no sum of 1. They are
                overwritten, and `POOL` gets them in the end if they are float32.
            size: tokens of the vocabulary, V.
            ids_C: the candidates, in ascending order; None if they are all tokens.
        """
        self.rng, self.size = rng, size
        self._weights, self._ids = weights_C, ids_C
        self._sums = block_sums(weights_C)  # Of what is left.
        self._total = self._rest = float(self._sums.sum())
        self._taken: dict[int, float] = {}  # The weights of the candidates that were taken.
        self._factors: dict[int, float] = {}  # By block, its rounded sum as a multiple of the exact one.
        self._first_sums = self._sums  # Before any candidate was taken.

    def __del__(self) -> None:
        if self._weights.dtype == np.float32:
            POOL.give(self._weights)

    @classmethod
    def certain(cls, rng: Rng, token: int, size: int) -> Draws:
        """Return a distribution that has one token."""
        return cls(rng, np.ones(1), size, np.array([token]))

    @property
    def left(self) -> float:
        """The probability of all tokens that were not taken."""
        return self._rest / self._total

    @property
    def is_empty(self) -> bool:
        """Tell whether all tokens that have a probability are taken."""
        return not self._rest > 0

    def pick(self) -> int:
        """Draw a token, and leave it to be drawn again."""
        block = self.rng.place(self._sums.cumsum())
        ends = self._members(block).cumsum(dtype=np.float64)
        if block not in self._factors:
            self._factors[block] = float(self._sums[block] / ends[-1])
        candidate = block * BLOCK + self.rng.place(ends)
        return candidate if self._ids is None else int(self._ids[candidate])

    def take(self) -> tuple[int, float]:
        """Draw a token of those that are left, and take it away.

        Returns:
            The token, and its share of the probability that was left before.
        """
        token, rest = self.pick(), self._rest
        candidate = self._candidate(token)
        weight = self._taken[candidate] = float(self._weights[candidate])
        self._weights[candidate] = 0
        block = candidate // BLOCK
        if self._first_sums is self._sums:
            self._sums = self._sums.copy()
        self._sums[block] = self._members(block).sum(dtype=np.float64) * self._factors[block]
        self._rest = float(self._sums.sum())
        return token, weight * self._factors[block] / rest

    def probability(self, token: int) -> float:
        """Return the probability of a drawn token before any was taken."""
        candidate = self._candidate(token)
        block = candidate // BLOCK
        if block not in self._factors:
            self._factors[block] = float(self._sums[block] / self._members(block).sum(dtype=np.float64))
        return self._taken.get(candidate, float(self._weights[candidate])) * self._factors[block] / self._total

    def probs(self) -> np.ndarray:
        """Return the distribution before any token was taken, [V] float64."""
        probs_C = self._weights.astype(np.float64)
        for candidate, weight in self._taken.items():
            probs_C[candidate] = weight
        self._share_blocks(probs_C)
        if self._ids is None:
            return probs_C
        probs_V = np.zeros(self.size)
        probs_V[self._ids] = probs_C
        return probs_V

    def _share_blocks(self, weights_C: np.ndarray) -> None:
        """Turn exact weights into probabilities, in place."""
        starts = _starts(len(weights_C))
        exact = np.add.reduceat(weights_C, starts)
        factors = np.divide(self._first_sums, exact, out=np.ones(len(exact)), where=exact > 0)
        if (factors != 1).any():
            weights_C *= factors.repeat(BLOCK)[: len(weights_C)]
        weights_C /= self._total

    def _members(self, block: int) -> np.ndarray:
        """Return the weights of the candidates of a block, as a view."""
        members: np.ndarray = self._weights[block * BLOCK : (block + 1) * BLOCK]
        return members

    def _candidate(self, token: int) -> int:
        """Return the index of the candidate that is a token."""
        return token if self._ids is None else int(self._ids.searchsorted(token))


class DrawnProbs(Mapping[int, np.ndarray]):
    """The distributions of a sampled draft by slot, [V] float64, each computed when it is asked for."""

    def __init__(self, draws: Mapping[int, Draws]) -> None:
        self._draws = draws

    def __getitem__(self, slot: int) -> np.ndarray:
        return self._draws[slot].probs()

    def probability(self, slot: int, token: int) -> float:
        """Return the probability of a token that was drawn, for which the whole distribution is not computed."""
        return self._draws[slot].probability(token)

    def __contains__(self, slot: object) -> bool:
        return slot in self._draws

    def __iter__(self) -> Iterator[int]:
        return iter(self._draws)

    def __len__(self) -> int:
        return len(self._draws)


def block_sums(weights_C: np.ndarray) -> np.ndarray:
    """Return the sums of weights by block, [blocks] float64; of weights in float32 they are rounded to float32."""
    blocks, rest = divmod(len(weights_C), BLOCK)
    if weights_C.dtype != np.float32:
        sums: np.ndarray = np.add.reduceat(weights_C, _starts(len(weights_C)))
        return sums
    sums = np.empty(blocks + (rest > 0))
    # Half the time of a sum along an axis.
    sums[:blocks] = np.einsum("ij->i", weights_C[: blocks * BLOCK].reshape(blocks, BLOCK))
    if rest:
        sums[-1] = weights_C[-rest:].sum()
    return sums


@lru_cache(16)
def _starts(candidates: int) -> np.ndarray:
    """Return where the blocks of so many candidates start."""
    return np.arange(0, candidates, BLOCK)
