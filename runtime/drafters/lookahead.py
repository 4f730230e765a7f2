"""Lookahead decoding (Fu et al. 2024, arXiv:2402.02057)."""

from __future__ import annotations

from collections import OrderedDict, defaultdict

import numpy as np

from ..draft import Accepted, Draft, Verified
from ..sequence import Sequence
from ..tree import Tree
from . import Drafter, Drafting, check_counts


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

    def open(self, seq: Sequence) -> LookaheadDrafting:
        return LookaheadDrafting(self, seq)

    def remember(self, first: int, rest: tuple[int, ...]) -> None:
        """Put an n-gram into the pool as the newest one, and drop the oldest one that begins with `first` if needed."""
        ngrams = self.pool[first]
        ngrams[rest] = None
        ngrams.move_to_end(rest)
        if len(ngrams) > self.guesses:
            ngrams.popitem(last=False)


class LookaheadDrafting(Drafting[Lookahead]):
    """The window of one request, and how much of its text is in the pool."""

    def __init__(self, drafter: Lookahead, seq: Sequence) -> None:
        """Begin with a window of tokens that are drawn from the text. A fixed seed makes the run repeatable."""
        super().__init__(drafter, seq)
        draw = np.random.default_rng(0).integers(len(seq.tokens), size=(drafter.rows, drafter.width))
        self.window = [[seq.tokens[i] for i in row] for row in draw]
        self.indexed = 0  # The n-grams of so many tokens of the text are in the pool.

    def draft(self, room: int) -> Draft:
        drafter, pending = self.drafter, self.seq.pending
        self._index(self.seq.tokens)
        guesses = list(reversed(drafter.pool[pending]))[: drafter.guesses]
        guesses += [(pending,) * drafter.rows] * (drafter.guesses - len(guesses))
        flat = [token for part in (*self.window, *guesses) for token in part]
        return Draft((pending, *flat), drafter.tree)

    def observe(self, draft: Draft, verified: Verified, accepted: Accepted) -> None:
        drafter = self.drafter
        if draft.tree.slots < drafter.tree.slots:
            return  # A draft that was cut has no whole window.
        last_row = 1 + (drafter.rows - 1) * drafter.width
        answers = verified.outputs.ids_N[last_row : last_row + drafter.width].tolist()
        for column, answer in enumerate(answers):
            first, *rest = [row[column] for row in self.window]
            drafter.remember(first, (*rest, answer))
        self.window = [*self.window[1:], answers]

    def _index(self, tokens: list[int]) -> None:
        """Remember the n-grams of the text itself."""
        rows = self.drafter.rows
        for end in range(max(self.indexed, rows) + 1, len(tokens) + 1):
            first, *rest = tokens[end - rows - 1 : end]
            self.drafter.remember(first, tuple(rest))
        self.indexed = len(tokens)
