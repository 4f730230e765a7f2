"""The pruned vocabulary."""

from __future__ import annotations

import pytest
import torch

from specc.training.vocabulary import choose_vocabulary

pytestmark = pytest.mark.torch


def test_the_most_frequent_tokens_are_taken_in_order() -> None:
    tokens, share = choose_vocabulary([torch.tensor([7, 7, 7, 2]), torch.tensor([5, 5, 2, 9])], 2, 10)
    assert tokens.tolist() == [2, 7] and share == 5 / 8


def test_of_equally_frequent_tokens_the_smaller_ones_are_taken() -> None:
    assert choose_vocabulary([torch.tensor([4, 8])], 4, 10)[0].tolist() == [0, 1, 4, 8]


def test_a_vocabulary_is_never_larger_than_the_models() -> None:
    tokens, share = choose_vocabulary([torch.tensor([1])], 99, 3)
    assert tokens.tolist() == [0, 1, 2] and share == 1
