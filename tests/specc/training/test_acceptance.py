"""Tokens a step, counted from ranks."""

from __future__ import annotations

import numpy as np
import pytest
from small_head import head, recordings

from specc.runtime.tree import Tree
from specc.training.acceptance import UNKNOWN, measure, ranks, summary, tokens_per_step
from specc.training.eagle3 import COURSE

pytestmark = pytest.mark.torch
WRONG = 9


def test_a_chain_counts_the_right_tokens_up_to_the_first_wrong_one() -> None:
    # Roots 0 and 3 begin a step: the first draft has two right tokens, the second none.
    text = np.array([[0, 0, 0, WRONG, 0], [0, 0, 0, 0, 0], [WRONG, 0, 0, 0, 0]])
    assert tokens_per_step([text], Tree.chain(4)) == 5 / 3


def test_a_head_that_is_always_right_fills_the_chain() -> None:
    assert tokens_per_step([np.zeros((4, 10), dtype=int)], Tree.chain(5)) == 5
    assert tokens_per_step([np.full((4, 10), WRONG)], Tree.chain(5)) == 1


def test_a_tree_takes_the_second_rank() -> None:
    text = np.array([[1, WRONG, 1, WRONG]])
    assert tokens_per_step([text], Tree((-1, 0, 0))) == 2
    assert tokens_per_step([text], Tree((-1, 0))) == 1


def test_a_token_outside_the_vocabulary_has_no_rank() -> None:
    module = head("eagle3", 8)
    acceptance = measure(module, COURSE, recordings(6), 2)
    assert acceptance.unknown > 0.3
    rows = [text[0] for text in ranks(module, COURSE, recordings(6), 2)]
    assert all(set(text[text != UNKNOWN]) <= set(range(8)) for text in rows)


def test_what_stands_behind_the_end_of_a_text_counts_for_nothing() -> None:
    """The last roots of a text have no token at the deeper depths. Heads and draft models pad them otherwise."""
    random = np.random.default_rng(0)
    texts = [random.choice([0, 1, WRONG], (4, 6), p=[0.3, 0.3, 0.4]) for _ in range(20)]
    behind = np.arange(6) + np.arange(4)[:, None] >= 6
    first, second = (summary([np.where(behind, rank, text) for text in texts]) for rank in (0, UNKNOWN))
    assert first == second


def test_rows_begin_with_the_first_token_of_the_answer() -> None:
    texts = recordings(3)
    columns = sorted(text.shape[1] for text in ranks(head("eagle3"), COURSE, texts, 2))
    assert columns == sorted(len(text) - 2 - (text.prompt - 1) for text in texts)


def test_a_text_without_an_answer_cannot_be_measured() -> None:
    with pytest.raises(ValueError, match="no held-out answer has a token to draft"):
        measure(head("eagle3"), COURSE, recordings(1, length=4), 2)
