"""Penalties against transformers' processors and against their definition."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest

from specc.runtime.processors import Processor
from specc.runtime.processors.penalties import FrequencyPenalty, RepetitionPenalty, TokenSet

SIZE = 40


def logits(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=4, size=SIZE).astype(np.float32)


def applied(processor: Processor, path: list[int], seed: int = 0) -> np.ndarray:
    row = logits(seed)
    processor(path, row)
    return row


@pytest.mark.torch
@pytest.mark.parametrize("penalty", [1.3, 0.8])
def test_the_repetition_penalty_is_that_of_transformers(penalty: float) -> None:
    import torch
    from transformers import RepetitionPenaltyLogitsProcessor

    prompt, new, path = [3, 3, 9], [4, 9, 17], [5, 4, 5]
    processor = RepetitionPenalty(penalty, prompt)
    processor.commit(new[:1])
    processor.commit(new[1:])
    reference = RepetitionPenaltyLogitsProcessor(penalty)
    for length in range(len(path) + 1):
        ids = torch.tensor([[*prompt, *new, *path[:length]]])
        expected = reference(ids, torch.tensor(logits()[None]))[0].numpy()
        assert np.array_equal(applied(processor, path[:length]), expected)


def test_frequency_and_presence_count_the_tokens_of_the_answer() -> None:
    processor = FrequencyPenalty(0.5, 0.25, SIZE)
    processor.commit([7, 8, 7])
    path = [8, 9, 9]
    counts = Counter([7, 8, 7, *path])
    expected = logits()
    for token, count in counts.items():
        expected[token] -= np.float32(0.5 * count + 0.25)
    assert np.array_equal(applied(processor, path), expected)
    assert np.array_equal(processor.counts_V, np.bincount([7, 8, 7], minlength=SIZE))


@pytest.mark.parametrize("make", [lambda: RepetitionPenalty(1.37, [1, 2]), lambda: FrequencyPenalty(0.3, 0.7, SIZE)])
def test_a_text_gives_the_same_bits_however_it_was_divided(make: Callable[[], Processor]) -> None:
    text = [5, 6, 5, 5, 30, 6, 2, 5]
    results = []
    for committed in range(len(text) + 1):
        processor = make()
        processor.commit(text[:committed])
        results.append(applied(processor, text[committed:]).tobytes())
    assert len(set(results)) == 1
    assert results[0] != logits().tobytes()


def test_a_set_of_tokens_has_each_once_in_the_order_of_the_text() -> None:
    tokens = TokenSet([4, 2, 4])
    tokens.add([9, 2])
    assert tokens.tokens.tolist() == [4, 2, 9]
    assert tokens.with_path([7, 7, 9]).tolist() == [4, 2, 9, 7]
    assert tokens.with_path([]) is tokens.tokens
