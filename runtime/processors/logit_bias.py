"""Logit bias: a number that is added to the logit of a token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from . import Processor


class LogitBias(Processor):
    """A processor that adds a number to the logits of some tokens, as OpenAI's `logit_bias` does.

    It is transformers' SequenceBiasLogitsProcessor for sequences of one token.
    """

    option = "logit_bias"

    def __init__(self, biases: Mapping[int, float]) -> None:
        self.tokens = np.array(list(biases), np.int64)
        self.biases = np.array(list(biases.values()), np.float32)

    def __call__(self, path: Sequence[int], logits_V: np.ndarray) -> None:
        logits_V[self.tokens] += self.biases
