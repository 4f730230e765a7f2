"""Staged: the draft engine checks lookup's guesses, several in a call."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from toys import ToyKV, propose

from specc.runtime.call import Call
from specc.runtime.drafters.staged import Staged
from specc.runtime.sequence import Cache, Sequence


class Successor:
    """A model that answers each token with the next number; one row a token. `calls` are the tokens of each call."""

    def __init__(self, rows: int) -> None:
        self.rows, self.drafted = rows, 0
        self.calls: list[list[int]] = []

    def engine(self, slots: int, capacity: int) -> Any:
        """Make an engine of so many slots."""

        def run(calls: list[Call]) -> list[SimpleNamespace]:
            (call,) = calls
            rows, tokens = len(call.cache) + call.rows, list(call.tokens)
            assert len(tokens) <= slots and (slots == 1 or len(tokens) > 1) and rows + slots <= capacity
            return [self.answer(rows, tokens)]

        return SimpleNamespace(slots=slots, run=run, run_one=lambda call: run([call])[0])

    def answer(self, rows: int, tokens: list[int]) -> SimpleNamespace:
        """Return the next number after each token."""
        assert rows == self.rows + self.drafted
        self.calls.append(tokens)
        answers = [token + 1 for token in tokens]
        pairs = zip(answers, tokens[1:], strict=False)
        right = next((i for i, (a, b) in enumerate(pairs) if a != b), len(tokens) - 1)
        self.drafted += right + 1
        return SimpleNamespace(ids_N=answers)


def draft(tokens: list[int], capacity: int = 64, **parameters: int) -> tuple[list[int], list[list[int]]]:
    """Return the tokens of a draft, and the tokens of each call."""
    model = Successor(len(tokens) - 1)
    staged = Staged(model.engine(1, capacity), model.engine(4, capacity), **parameters)
    return list(
        propose(staged.open(Sequence(tokens, {"target": Cache(ToyKV(capacity), tokens[:-1])}))).tokens
    ), model.calls


def test_without_a_match_it_drafts_a_token_a_call() -> None:
    assert draft([5, 7], num_speculative_tokens=3) == ([7, 8, 9, 10], [[7], [8], [9]])


def test_guesses_that_the_engine_shares_come_in_one_call() -> None:
    tokens = [1, 2, 3, 4, 5, 6, 90, 1, 2]
    assert draft(tokens, num_speculative_tokens=4, max_matching_ngram_size=2) == ([2, 3, 4, 5, 6], [[2, 3, 4, 5]])


def test_after_a_wrong_guess_the_engine_s_own_token_stands() -> None:
    """Two tokens are left to draft then, and one of them is the engine's."""
    tokens = [1, 2, 3, 40, 41, 90, 1, 2]
    drafted, calls = draft(tokens, num_speculative_tokens=3, max_matching_ngram_size=2)
    assert (drafted, calls[0]) == ([2, 3, 4, 5], [2, 3, 40])
    assert calls[1:] == [[4]]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_a_draft_is_as_long_as_it_may_be(count: int) -> None:
    drafted, _ = draft([1, 2, 3, 4, 5, 6, 7, 8, 9, 90, 1, 2], num_speculative_tokens=count)
    assert drafted == [2, *range(3, 3 + count)]


def test_at_the_end_of_the_rows_a_token_a_call_still_fits() -> None:
    tokens = [1, 2, 3, 4, 5, 6, 90, 1, 2]
    assert draft(tokens, capacity=12, num_speculative_tokens=3, max_matching_ngram_size=2)[1] == [[2, 3, 4]]
    assert draft(tokens, capacity=11, num_speculative_tokens=3, max_matching_ngram_size=2)[1] == [[2], [3], [4]]
