"""Log-probabilities of new tokens: the model's own, and those of the likeliest tokens."""

from __future__ import annotations

import numpy as np
import pytest

from specc.runtime.draft import Outputs
from specc.runtime.processors import Processing
from specc.runtime.processors.logit_bias import LogitBias
from specc.runtime.processors.logprobs import Logprobs

PROBS = np.array([[0.5, 0.25, 0.125, 0.125], [0.1, 0.2, 0.3, 0.4]])
LOGITS = (np.log(PROBS) + 3).astype(np.float32)


def outputs() -> Outputs:
    return Outputs(LOGITS.argmax(-1).data, LOGITS.copy())


def test_a_token_gets_the_log_probability_of_its_slot_and_the_likeliest_ones() -> None:
    logprobs = Logprobs(2)
    logprobs.record(outputs(), (0, 1), [2, 3])
    logprobs.record(outputs(), (1,), [0])
    assert [entry.token_id for entry in logprobs.tokens] == [2, 3, 0]
    assert [entry.logprob for entry in logprobs.tokens] == pytest.approx(np.log([0.125, 0.4, 0.1]))
    assert list(logprobs.tokens[0].top) == [0, 1] and list(logprobs.tokens[1].top) == [3, 2]
    assert list(logprobs.tokens[1].top.values()) == pytest.approx(np.log([0.4, 0.3]))


@pytest.mark.parametrize(("count", "top"), [(0, []), (3, [0, 1, 2]), (4, [0, 1, 2, 3])])
def test_of_equal_tokens_the_smaller_comes_first(count: int, top: list[int]) -> None:
    logprobs = Logprobs(count)
    logprobs.record(outputs(), (0,), [3])
    assert list(logprobs.tokens[0].top) == top


def test_they_are_recorded_before_the_processors_and_do_not_change_with_them() -> None:
    logprobs = Logprobs(1)
    processing = Processing(4, [LogitBias({3: 100.0})], logprobs)
    processing.commit(outputs(), (0,), [3])
    assert logprobs.tokens[0].logprob == pytest.approx(np.log(0.125))
