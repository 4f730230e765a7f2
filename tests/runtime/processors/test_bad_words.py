"""Bad words against transformers' processor."""

from __future__ import annotations

import numpy as np
import pytest

from specc.runtime.processors.bad_words import BadWords

SIZE, EOS = 12, 0
WORDS = [[4], [5, 6], [7, 8, 9], [7, 8, 10], [EOS], [EOS, 1]]


def banned(processor: BadWords, path: list[int]) -> list[int]:
    row = np.zeros(SIZE, np.float32)
    processor(path, row)
    return [int(token) for token in np.flatnonzero(np.isneginf(row))]


@pytest.mark.torch
@pytest.mark.parametrize("prompt", [[1], [7], [1, 7, 8], [5, 5]])
def test_it_is_the_processor_of_transformers(prompt: list[int]) -> None:
    import torch
    from transformers import NoBadWordsLogitsProcessor

    reference = NoBadWordsLogitsProcessor(WORDS, EOS)
    processor = BadWords(WORDS, prompt, (EOS,))
    text = [5, 7, 8, 2, 0, 7, 8]
    for committed in range(len(text) + 1):
        for end in range(committed, len(text) + 1):
            ids = torch.tensor([[*prompt, *text[:end]]])
            scores = reference(ids, torch.zeros(1, SIZE))[0].numpy()
            assert banned(processor, text[committed:end]) == np.flatnonzero(np.isneginf(scores)).tolist()
        processor.commit(text[committed : committed + 1])


def test_a_sequence_may_begin_in_the_prompt_and_end_on_a_path() -> None:
    processor = BadWords([[7, 8, 9]], [1, 7])
    assert banned(processor, []) == []
    assert banned(processor, [8]) == [9]
    processor.commit([8])
    assert banned(processor, []) == [9]
    processor.commit([3])
    assert banned(processor, [7, 8]) == [9]


def test_the_end_alone_is_not_forbidden() -> None:
    assert banned(BadWords([[EOS], [EOS, 3]], [], (EOS,)), []) == []
    assert banned(BadWords([[EOS], [EOS, 3]], [EOS], (EOS,)), []) == [3]
