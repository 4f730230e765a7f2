"""Penalties for tokens that the text has already.

The result for a token depends on the whole text and path, and not on how they were divided into steps. So plain
decoding and speculation give the same bits.

V  vocabulary
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from . import Processor


class TokenSet:
    """The different tokens of a text that grows, as an array."""

    def __init__(self, tokens: Sequence[int] = ()) -> None:
        self.tokens = np.empty(0, np.int64)
        self._present: set[int] = set()
        self.add(tokens)

    def add(self, tokens: Sequence[int]) -> None:
        """Add tokens to the end of the text."""
        self.tokens = self.with_path(tokens)
        self._present.update(tokens)

    def with_path(self, path: Sequence[int]) -> np.ndarray:
        """Return the different tokens of the text and `path`, int64."""
        others = [token for token in dict.fromkeys(path) if token not in self._present]
        return np.concatenate([self.tokens, np.array(others, np.int64)]) if others else self.tokens


class RepetitionPenalty(Processor):
    """A processor that makes the tokens of prompt and answer less likely (Keskar et al. 2019, arXiv:1909.05858).

    It is transformers' RepetitionPenaltyLogitsProcessor: a logit is divided by the penalty if it is positive, and
    multiplied by it if it is negative.
    """

    option = "repetition_penalty"

    def __init__(self, penalty: float, prompt: Sequence[int]) -> None:
        """Collect the tokens of the prompt.

        Args:
            penalty: above 1 makes repetition less likely, below 1 more likely.
            prompt: the tokens of the prompt.
        """
        self.penalty, self.text = np.float32(penalty), TokenSet(prompt)

    def __call__(self, path: Sequence[int], logits_V: np.ndarray) -> None:
        tokens = self.text.with_path(path)
        logits = logits_V[tokens]
        logits_V[tokens] = np.where(logits < 0, logits * self.penalty, logits / self.penalty)

    def commit(self, tokens: Sequence[int]) -> None:
        self.text.add(tokens)


class FrequencyPenalty(Processor):
    """A processor that makes the tokens of the answer less likely, by how often they occur and for being there.

    As OpenAI and vLLM define it, a logit loses count * frequency + presence, if the count is not 0. The tokens of the
    prompt do not count.
    """

    option = "frequency_penalty or presence_penalty"

    def __init__(self, frequency: float, presence: float, vocab_size: int) -> None:
        """Begin with an empty answer.

        Args:
            frequency: what a logit loses for each time that the token occurs.
            presence: what a logit loses if the token occurs.
            vocab_size: V.
        """
        self.frequency, self.presence = np.float32(frequency), np.float32(presence)
        self.text, self.counts_V = TokenSet(), np.zeros(vocab_size, np.float32)

    def __call__(self, path: Sequence[int], logits_V: np.ndarray) -> None:
        tokens = self.text.with_path(path)
        self._count(path, 1)
        logits_V[tokens] -= self.frequency * self.counts_V[tokens] + self.presence
        self._count(path, -1)

    def commit(self, tokens: Sequence[int]) -> None:
        self.text.add(tokens)
        self._count(tokens, 1)

    def _count(self, tokens: Sequence[int], times: int) -> None:
        for token in tokens:
            self.counts_V[token] += times
