"""Staged: lookup's guesses are checked by the draft engine, several in a call."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from specc.runtime.drafters.staged import Staged
from specc.runtime.sequence import Cache, Sequence


class Counting:
    """A model that answers with the token after each; one row a token. `calls` are those fed."""

    def __init__(self, rows: int) -> None:
        self.rows, self.calls, self.drafted = rows, [], 0

    def engine(self, slots: int, capacity: int) -> Any:
        def run_after(rows: int, tokens: list[int]) -> SimpleNamespace:
            assert len(tokens) <= slots and (slots == 1 or len(tokens) > 1) and rows + slots <= capacity
            return self.run_after(rows, tokens)

        return SimpleNamespace(slots=slots, store=SimpleNamespace(capacity=capacity), run_after=run_after)

    def run_after(self, rows: int, tokens: list[int]) -> SimpleNamespace:
        assert rows == self.rows + self.drafted
        self.calls.append(tokens)
        said = [token + 1 for token in tokens]
        right = next((i for i, (a, b) in enumerate(zip(said, tokens[1:], strict=False)) if a != b), len(tokens) - 1)
        self.drafted += right + 1
        return SimpleNamespace(ids_N=said)


def draft(tokens: list[int], capacity: int = 64, **parameters: int) -> tuple[list[int], list[list[int]]]:
    model = Counting(len(tokens) - 1)
    staged = Staged(model.engine(1, capacity), model.engine(4, capacity), **parameters)
    return list(staged.propose(Sequence(tokens, Cache(None, tokens[:-1]))).tokens), model.calls


def test_where_nothing_was_seen_it_drafts_a_token_a_call() -> None:
    assert draft([5, 7], num_speculative_tokens=3) == ([7, 8, 9, 10], [[7], [8], [9]])


def test_guesses_that_the_engine_shares_come_in_one_call() -> None:
    tokens = [1, 2, 3, 4, 5, 6, 90, 1, 2]
    assert draft(tokens, num_speculative_tokens=4, max_matching_ngram_size=2) == ([2, 3, 4, 5, 6], [[2, 3, 4, 5]])


def test_after_a_wrong_guess_the_engine_s_own_token_stands() -> None:
    tokens = [1, 2, 3, 40, 41, 90, 1, 2]
    found, calls = draft(tokens, num_speculative_tokens=3, max_matching_ngram_size=2)
    assert (found, calls[0]) == ([2, 3, 4, 5], [2, 3, 40])  # two are left, and one is the engine's
    assert calls[1:] == [[4]]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_a_draft_is_as_long_as_it_may_be(count: int) -> None:
    found, _ = draft([1, 2, 3, 4, 5, 6, 7, 8, 9, 90, 1, 2], num_speculative_tokens=count)
    assert found == [2, *range(3, 3 + count)]


def test_at_the_end_of_the_rows_a_token_a_call_still_fits() -> None:
    tokens = [1, 2, 3, 4, 5, 6, 90, 1, 2]
    assert draft(tokens, capacity=12, num_speculative_tokens=3, max_matching_ngram_size=2)[1] == [[2, 3, 4]]
    assert draft(tokens, capacity=11, num_speculative_tokens=3, max_matching_ngram_size=2)[1] == [[2], [3], [4]]
