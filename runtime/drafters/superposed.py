"""Superposed Decoding: several texts from one pass for each token (Shen et al. 2024, arXiv:2405.18400).

K  texts, which is the number of slots
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from collections.abc import Sequence as Tokens
from functools import lru_cache
from math import exp, log
from pathlib import Path

import numpy as np

from ..block import MIXTURE
from ..call import Call
from ..corpus_index import CorpusIndex
from ..draft import Draft, Outputs
from ..engine import Engine
from ..sequence import Sequence
from ..tree import Tree
from . import MOST_TOKENS, MOST_VOCABULARY, Drafter, Drafting, Proposal, Suggestion, check_counts, check_probability

NGRAMS: Mapping[int, float] = {1: 0.01, 2: 0.04, 3: 0.15, 4: 0.18, 5: 0.12}  # The weights of contexts, by their sizes.
PATTERNS = 1 << 13  # looked-up patterns that are kept
UNSEEN = -200.0  # log-probability of a token that follows in no n-gram of the corpus


class Superposed(Drafter):
    """A drafter of K texts at once. The model reads, in one slot, the sum of the embeddings of their last tokens.

    Each pass gives one row of probabilities for all texts. The corpus says which token goes with which text: the
    probability of each pair is interpolated from the n-grams of the corpus. The likeliest text is the draft of a step.
    """

    files = ("corpus",)
    suggests = True

    def __init__(
        self, mixture: Engine, corpus: Path, vocab_size: int, num_speculative_tokens: int = 10, alpha: float = 0.54
    ) -> None:
        """Open the index, and keep the engine and the parameters.

        Args:
            mixture: an engine of K slots over the target's cache that takes a mixture.
            corpus: the index.
            vocab_size: token ids are below it.
            num_speculative_tokens: tokens of the text that becomes a draft.
            alpha: the weight of the n-grams, from 0 to 1. The model has the rest.

        Raises:
            RecipeError: a parameter is out of range, or the file is not an index.
        """
        check_counts(most=MOST_VOCABULARY, vocab_size=vocab_size)
        check_counts(num_speculative_tokens=num_speculative_tokens)
        check_probability(alpha=alpha)
        self.engine = mixture
        self.index, self.count, self.alpha = CorpusIndex(corpus, vocab_size), num_speculative_tokens, alpha
        self._following = lru_cache(PATTERNS)(self._look_up)  # Short patterns come again and again.

    def open(self, seq: Sequence) -> SuperposedDrafting:
        return SuperposedDrafting(self, seq)

    def shares(self, text: Tokens[int]) -> dict[int, float]:
        """Return the tokens that follow the end of a text in the corpus, with their interpolated probabilities."""
        total: dict[int, float] = {}
        sizes = {size: weight for size, weight in NGRAMS.items() if size <= len(text)}
        for size, weight in sizes.items():
            for token, share in self._following(tuple(text[-size:])).items():
                total[token] = total.get(token, 0.0) + weight * share / sum(sizes.values())
        return total

    def _look_up(self, pattern: tuple[int, ...]) -> dict[int, float]:
        """Return the tokens that follow a pattern in the corpus, with their shares."""
        return self.index.shares(pattern, MOST_VOCABULARY)

    def scores(self, text: Tokens[int], tokens: Tokens[int], logprobs: Tokens[float]) -> list[float]:
        """Return the score of each token after a text: the model's logarithm and that of the n-grams, weighted.

        Args:
            text: the end of the prompt with one of the texts.
            tokens: tokens that the model finds likely.
            logprobs: the logarithms of their probabilities.
        """
        if not self.alpha:
            return list(logprobs)
        shares = self.shares(text)
        logs = [log(shares[token]) if token in shares else UNSEEN for token in tokens]
        return [(1 - self.alpha) * logprob + self.alpha * share for logprob, share in zip(logprobs, logs, strict=True)]


class SuperposedDrafting(Drafting[Superposed]):
    """The superposed texts of one request. Their rows are scratch."""

    def propose(self, room: int) -> Proposal:
        texts = yield from self.suggest(min(self.drafter.count, room))
        return Draft.chain([self.seq.pending, *(texts[0].tokens if texts else ())])

    def suggest(self, count: int) -> Generator[Call, Outputs, list[Suggestion]]:
        drafter, cache = self.drafter, self.seq.cache
        slots = drafter.engine.slots
        scratch = min(cache.store.capacity - len(cache), 1 + MOST_TOKENS)
        longest = max(NGRAMS)
        texts = [Suggestion((), 0.0)]
        for row in range(min(count, scratch - slots + 1)):
            tokens = [text.tokens[-1] if text.tokens else self.seq.pending for text in texts]
            outputs = yield self._call(row, tokens, [text.score for text in texts])
            ids, probs = outputs.top(0)
            with np.errstate(divide="ignore"):
                ranked, logprobs = ids.tolist(), np.log(probs).tolist()
            candidates = []
            for text in texts:
                before = [*self.seq.tokens[-longest:], *text.tokens]
                scores = drafter.scores(before, ranked, logprobs)
                candidates += [
                    Suggestion((*text.tokens, token), text.score + score)
                    for token, score in zip(ranked, scores, strict=True)
                ]
            texts = sorted(candidates, key=lambda text: -text.score)[:slots]
        return [text for text in texts if text.tokens]

    def _call(self, row: int, tokens: list[int], scores: list[float]) -> Call:
        """Make the call that runs the sum of the texts' last tokens, weighted by how likely each text is.

        Args:
            row: how many rows of these texts the cache has.
            tokens: the last token of each text.
            scores: of the texts, logarithms.
        """
        engine = self.drafter.engine
        weights = [exp(score - max(scores)) for score in scores]
        mixture = np.eye(engine.slots, dtype=np.float32)
        mixture[0] = 0
        mixture[0, : len(tokens)] = np.divide(weights, sum(weights))
        padded = [*tokens, *[tokens[0]] * (engine.slots - len(tokens))]
        return Call(engine, self.seq.cache, row, padded, Tree.chain(engine.slots), {MIXTURE: mixture})
