"""Cascade: what lookup knows is copied, the engine fills in where it knows nothing."""

from __future__ import annotations

import numpy as np

from specc.runtime.draft import Outputs
from specc.runtime.drafters.cascade import Cascade
from specc.runtime.sequence import Cache, Sequence


class Counting:
    """An engine that answers with the token after the last one; one row a token."""

    def __init__(self, rows: int) -> None:
        self.rows = rows
        self.fed: list[int] = []
        self.outputs = Outputs(np.zeros(1, np.int64), None, np.zeros((1, 1), np.int64), np.zeros((1, 1)))

    def run_after(self, rows, tokens) -> Outputs:
        assert rows == self.rows + len(self.fed)
        self.fed += tokens
        self.outputs.ids_N[0] = tokens[-1] + 1
        return self.outputs


def draft(tokens: list[int], **parameters) -> tuple[list[int], list[int]]:
    cascade = Cascade(engine := Counting(len(tokens) - 1), **parameters)
    return list(cascade.propose(Sequence(tokens, Cache(None, tokens[:-1]))).tokens), engine.fed


def test_what_was_seen_is_copied_and_no_engine_runs():
    assert draft([1, 2, 3, 4, 9, 1, 2, 3]) == ([3, 4, 9, 1, 2, 3, 4, 9, 1], [])


def test_where_nothing_was_seen_the_engine_drafts_alone():
    assert draft([5, 7], num_speculative_tokens=3) == ([7, 8, 9, 10], [7, 8, 9])


def test_a_drafted_token_that_leads_to_something_seen_ends_the_drafting():
    tokens = [7, 8, 40, 41, 42, 6, 5, 7]
    assert draft(tokens, num_speculative_tokens=3, prompt_lookup_num_tokens=6) == ([7, 8, 40, 41, 42], [7])


def test_a_match_that_is_too_short_is_none():
    tokens = [7, 50, 51, 7]
    assert draft(tokens, num_speculative_tokens=1)[0] == [7, 8]
    assert draft(tokens, num_speculative_tokens=1, min_matching_ngram_size=1)[0][1] == 50


def test_a_doubtful_token_ends_the_draft():
    cascade = Cascade(Counting(1), num_speculative_tokens=3, assistant_confidence_threshold=0.5)
    cascade.engine.outputs.top_logprobs_NK[:] = np.log(0.4)
    assert list(cascade.propose(Sequence([5, 7], Cache(None, [5]))).tokens) == [7, 8]
