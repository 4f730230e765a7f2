"""Words that an answer must not contain."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from . import Processor


class BadWords(Processor):
    """A processor that forbids the last token of a sequence where the tokens before it are those of the sequence.

    It is transformers' NoBadWordsLogitsProcessor: a sequence may begin in the prompt, and one that is an
    end-of-sequence token alone is not forbidden.
    """

    option = "bad_words"

    def __init__(self, sequences: Collection[Sequence[int]], prompt: Sequence[int], eos: Collection[int] = ()) -> None:
        """Sort the sequences by length.

        Args:
            sequences: sequences of tokens, none of them empty.
            prompt: the tokens of the prompt.
            eos: the end-of-sequence tokens.
        """
        words = {tuple(sequence) for sequence in sequences}
        self.single = np.array(sorted(t for t, *rest in words if not rest and t not in eos), np.int64)
        self.longer = [(word[:-1], word[-1]) for word in sorted(words) if len(word) > 1]
        self.longest = max((len(prefix) for prefix, _ in self.longer), default=0)
        self.tail: list[int] = []
        self.commit(prompt)

    def __call__(self, path: Sequence[int], logits_V: np.ndarray) -> None:
        logits_V[self.single] = -np.inf
        before = (*self.tail, *path)
        for prefix, last in self.longer:
            if before[-len(prefix) :] == prefix:
                logits_V[last] = -np.inf

    def commit(self, tokens: Sequence[int]) -> None:
        if self.longest:
            self.tail = [*self.tail, *tokens][-self.longest :]
