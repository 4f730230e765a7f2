"""The least length of an answer against transformers' processor."""

from __future__ import annotations

import numpy as np
import pytest

from specc.runtime.processors.min_new_tokens import MinNewTokens


@pytest.mark.torch
def test_it_is_the_processor_of_transformers() -> None:
    import torch
    from transformers import MinNewTokensLengthLogitsProcessor

    reference = MinNewTokensLengthLogitsProcessor(2, 3, [0, 5])
    processor = MinNewTokens(3, {5, 0})
    for committed in range(5):
        for path in ([], [2], [2, 2], [2, 2, 2, 2]):
            row = np.ones(8, np.float32)
            ids = torch.ones(1, 2 + committed + len(path), dtype=torch.int64)
            expected = reference(ids, torch.ones(1, 8))[0].numpy()
            processor(path, row)
            assert np.array_equal(row, expected)
        processor.commit([1])
