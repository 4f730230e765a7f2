"""A least length of an answer."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from . import Processor


class MinNewTokens(Processor):
    """A processor that forbids the tokens that end an answer, until it has so many tokens.

    It is transformers' MinNewTokensLengthLogitsProcessor.
    """

    option = "min_new_tokens"

    def __init__(self, count: int, ends: Collection[int]) -> None:
        """Keep the limit.

        Args:
            count: tokens that an answer has before it may end.
            ends: the tokens that end an answer.
        """
        self.left, self.ends = count, np.array(sorted(ends), np.int64)

    def __call__(self, path: Sequence[int], logits_V: np.ndarray) -> None:
        if len(path) < self.left:
            logits_V[self.ends] = -np.inf

    def commit(self, tokens: Sequence[int]) -> None:
        self.left -= len(tokens)
