"""Lookahead decoding (Fu et al. 2024, arXiv:2402.02057)."""

from __future__ import annotations

from collections import OrderedDict, defaultdict

import numpy as np

from ..draft import Accepted, Draft, Verified
from ..sequence import Sequence
from ..tree import Tree
from . import Drafter, check_counts


class Lookahead(Drafter):
    """A drafter that makes n-grams by Jacobi iteration, and verifies some of them in the same pass.

    One tree holds both (`Tree.window`): a window of N - 1 rows and W columns, where the iteration runs, and G guesses
    of N - 1 tokens from the pool of n-grams. A window slot that turns out right is accepted like any other.
    """

    def __init__(self, window_size: int = 4, ngram_size: int = 4, max_candidates: int = 3) -> None:
        """Make an empty pool.

        Args:
            window_size: W in the paper.
            ngram_size: N in the paper.
            max_candidates: G in the paper.
        """
        check_counts(window_size=window_size)
        check_counts(2, ngram_size=ngram_size)
        check_counts(0, max_candidates=max_candidates)
        self.width, self.rows, self.guesses = window_size, ngram_size - 1, max_candidates
        self.tree = Tree.window(self.width, self.rows, self.guesses)
        # For each token the n-grams that begin with it, without that token, newest last.
        self.pool: defaultdict[int, OrderedDict[tuple[int, ...], None]] = defaultdict(OrderedDict)
        self.window: list[list[int]] = []
        self.indexed: list[int] = []  # The text whose n-grams are in the pool.

    def propose(self, seq: Sequence) -> Draft:
        if not self.window or seq.tokens[: len(self.indexed)] != self.indexed:
            # Another text: begin with tokens drawn from it. A fixed seed makes the run repeatable.
            draw = np.random.default_rng(0).integers(len(seq.tokens), size=(self.rows, self.width))
            self.window = [[seq.tokens[i] for i in row] for row in draw]
            self.indexed = []
        self._index(seq.tokens)
        guesses = list(reversed(self.pool[seq.pending]))[: self.guesses]
        guesses += [(seq.pending,) * self.rows] * (self.guesses - len(guesses))
        flat = [token for part in (*self.window, *guesses) for token in part]
        return Draft((seq.pending, *flat), self.tree)

    def observe(self, seq: Sequence, draft: Draft, verified: Verified, accepted: Accepted) -> None:
        if draft.tree.slots < self.tree.slots:
            return  # A draft that was cut has no whole window.
        last_row = 1 + (self.rows - 1) * self.width
        answers = verified.outputs.ids_N[last_row : last_row + self.width].tolist()
        for column, answer in enumerate(answers):
            first, *rest = [row[column] for row in self.window]
            self._remember(first, (*rest, answer))
        self.window = [*self.window[1:], answers]

    def _index(self, tokens: list[int]) -> None:
        """Remember the n-grams of the text itself."""
        for end in range(max(len(self.indexed), self.rows) + 1, len(tokens) + 1):
            first, *rest = tokens[end - self.rows - 1 : end]
            self._remember(first, tuple(rest))
        self.indexed = list(tokens)

    def _remember(self, first: int, rest: tuple[int, ...]) -> None:
        """Put an n-gram into the pool as the newest one, and drop the oldest one that begins with `first` if needed."""
        ngrams = self.pool[first]
        ngrams[rest] = None
        ngrams.move_to_end(rest)
        if len(ngrams) > self.guesses:
            ngrams.popitem(last=False)
