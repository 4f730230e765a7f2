"""Log-probabilities of the tokens of an answer.

N  slots      V  vocabulary
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from ..draft import Outputs


@dataclass(frozen=True, kw_only=True)
class TokenLogprobs:
    """The log-probability of a token of an answer, and those of the likeliest tokens at its place.

    These are the model's own, by its logits as they are: before processors, temperature, top-k and top-p. vLLM calls
    them `raw_logprobs`.

    Attributes:
        token_id: the token.
        logprob: its natural log-probability.
        top: the likeliest tokens with their log-probabilities, likeliest first.
    """

    token_id: int
    logprob: float
    top: Mapping[int, float]


class Logprobs:
    """What records the log-probabilities of new tokens, step by step.

    Attributes:
        count: how many of the likeliest tokens are kept with each token.
        tokens: an entry for each new token.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.tokens: list[TokenLogprobs] = []

    def record(self, outputs: Outputs, slots: Sequence[int], tokens: Sequence[int]) -> None:
        """Record the tokens of a step, before the next run overwrites its outputs.

        Args:
            outputs: the target's outputs of the step.
            slots: for each token the slot that it follows.
            tokens: the tokens.
        """
        assert outputs.logits_NV is not None
        for slot, token in zip(slots, tokens, strict=True):
            logprobs_V = _log_softmax(outputs.logits_NV[slot])
            top = {int(t): float(logprobs_V[t]) for t in _likeliest(logprobs_V, self.count)}
            self.tokens.append(TokenLogprobs(token_id=token, logprob=float(logprobs_V[token]), top=top))


def _log_softmax(logits_V: np.ndarray) -> np.ndarray:
    """Return log-probabilities, [V] float64."""
    numbers = logits_V.astype(np.float64)
    numbers -= numbers.max()
    numbers -= np.log(np.exp(numbers).sum())
    return numbers


def _likeliest(logprobs_V: np.ndarray, count: int) -> np.ndarray:
    """Return the `count` likeliest tokens, likeliest first. Of equal ones the smaller token comes first."""
    if not count:
        return np.empty(0, np.int64)
    least = np.partition(logprobs_V, -count)[-count]
    tokens = np.flatnonzero(logprobs_V >= least)
    return tokens[np.argsort(-logprobs_V[tokens], kind="stable")][:count]
