"""Logit bias against transformers' bias of sequences."""

from __future__ import annotations

import numpy as np
import pytest

from specc.runtime.processors.logit_bias import LogitBias


@pytest.mark.torch
def test_it_is_the_bias_of_transformers_for_one_token() -> None:
    import torch
    from transformers import SequenceBiasLogitsProcessor

    biases = {3: 2.5, 11: -100.0, 0: 0.3}
    row = np.random.default_rng(0).normal(size=16).astype(np.float32)
    reference = SequenceBiasLogitsProcessor([[[token], bias] for token, bias in biases.items()])
    expected = reference(torch.tensor([[1, 2]]), torch.tensor(row[None]))[0].numpy()
    LogitBias(biases)([], row)
    assert np.array_equal(row, expected)


def test_it_does_not_depend_on_the_text() -> None:
    processor, row = LogitBias({1: 2.0}), np.zeros(3, np.float32)
    processor.commit([1, 1])
    processor([1], row)
    assert row.tolist() == [0.0, 2.0, 0.0]
