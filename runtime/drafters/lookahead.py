"""Lookahead decoding (Fu et al. 2024, arXiv:2402.02057): Jacobi iteration makes n-grams, the same pass verifies some.

The window's slots and the n-grams' stand in one tree (`Tree.window`). A window slot that turns out right is accepted
like any other.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict

import numpy as np

from ..draft import Accepted, Draft, Verified
from ..sequence import Sequence
from ..tree import Tree
from .plain import Plain


class Lookahead(Plain):
    """window_size W, ngram_size N and max_candidates G as in the paper: (N - 1) W window slots, G guesses of N - 1."""

    def __init__(self, window_size: int = 4, ngram_size: int = 4, max_candidates: int = 3) -> None:
        self.width, self.rows, self.guesses = window_size, ngram_size - 1, max_candidates
        self.tree = Tree.window(self.width, self.rows, self.guesses)
        self.pool: defaultdict[int, OrderedDict[tuple[int, ...], None]] = defaultdict(OrderedDict)
        self.window: list[list[int]] = []
        self.indexed: list[int] = []

    def propose(self, seq: Sequence) -> Draft:
        if not self.window or seq.tokens[: len(self.indexed)] != self.indexed:
            draw = np.random.default_rng(0).integers(len(seq.tokens), size=(self.rows, self.width))
            self.window = [[seq.tokens[i] for i in row] for row in draw]
            self.indexed = []
        self._index(seq.tokens)
        guesses = list(reversed(self.pool[seq.pending]))[: self.guesses]
        guesses += [(seq.pending,) * self.rows] * (self.guesses - len(guesses))
        flat = [token for part in (*self.window, *guesses) for token in part]
        return Draft((seq.pending, *flat), self.tree)

    def observe(self, seq: Sequence, draft: Draft, verified: Verified, accepted: Accepted) -> None:
        last = 1 + (self.rows - 1) * self.width
        fresh = verified.outputs.ids_N[last : last + self.width].tolist()
        for first, *rest in zip(*self.window, fresh, strict=True):
            self._remember(first, tuple(rest))
        self.window = [*self.window[1:], fresh]

    def _index(self, tokens: list[int]) -> None:
        """Remember the n-grams of the text itself."""
        for end in range(max(len(self.indexed), self.rows) + 1, len(tokens) + 1):
            first, *rest = tokens[end - self.rows - 1 : end]
            self._remember(first, tuple(rest))
        self.indexed = list(tokens)

    def _remember(self, first: int, rest: tuple[int, ...]) -> None:
        known = self.pool[first]
        known[rest] = None
        known.move_to_end(rest)
        if len(known) > self.guesses:
            known.popitem(last=False)
