"""Cascade: lookup copies what it finds, and the engine drafts where lookup finds nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
from toys import ToyKV, propose

from specc.runtime.call import Call
from specc.runtime.draft import Outputs
from specc.runtime.drafters.cascade import Cascade
from specc.runtime.sequence import Cache, Sequence


class Successor:
    """An engine that answers each token with the next number; one row a token. `fed` are the tokens that it ran."""

    def __init__(self, rows: int, probability: float = 1.0) -> None:
        self.rows, self.probability = rows, probability
        self.fed: list[int] = []

    def run_one(self, call: Call) -> Outputs:
        assert len(call.cache) + call.rows == self.rows + len(self.fed)
        self.fed += call.tokens
        answer = np.array([call.tokens[-1] + 1])
        return Outputs(answer.data, None, answer[None], np.log([[self.probability]]))


def draft(tokens: list[int], probability: float = 1.0, **parameters: Any) -> tuple[list[int], list[int]]:
    """Return the tokens of a draft, and the tokens that the engine ran for it."""
    engine: Any = Successor(len(tokens) - 1, probability)
    seq = Sequence(tokens, {"target": Cache(ToyKV(), tokens[:-1])})
    return list(propose(Cascade(engine, **parameters).open(seq)).tokens), engine.fed


def test_what_the_text_has_is_copied_and_no_engine_runs() -> None:
    assert draft([1, 2, 3, 4, 9, 1, 2, 3]) == ([3, 4, 9, 1, 2, 3, 4, 9, 1], [])


def test_without_a_match_the_engine_drafts_alone() -> None:
    assert draft([5, 7], num_speculative_tokens=3) == ([7, 8, 9, 10], [7, 8, 9])


def test_a_drafted_token_that_leads_to_a_match_ends_the_drafting() -> None:
    tokens = [7, 8, 40, 41, 42, 6, 5, 7]
    assert draft(tokens, num_speculative_tokens=3, prompt_lookup_num_tokens=6) == ([7, 8, 40, 41, 42], [7])


def test_the_last_drafted_token_may_lead_to_a_match_too() -> None:
    tokens = [7, 8, 40, 41, 42, 6, 5, 7]
    assert draft(tokens, num_speculative_tokens=1, prompt_lookup_num_tokens=6) == ([7, 8, 40, 41, 42], [7])


def test_a_match_that_is_too_short_is_none() -> None:
    tokens = [7, 50, 51, 7]
    assert draft(tokens, num_speculative_tokens=1)[0] == [7, 8]
    assert draft(tokens, num_speculative_tokens=1, min_matching_ngram_size=1)[0][1] == 50


def test_a_doubtful_token_ends_the_draft() -> None:
    """Even where it leads to a match."""
    tokens = [7, 8, 40, 41, 42, 6, 5, 7]
    assert draft(tokens, 0.4, num_speculative_tokens=3, assistant_confidence_threshold=0.5) == ([7, 8], [7])


def test_no_more_is_drafted_than_is_asked_for() -> None:
    for limit, tokens in ((2, [7]), (3, [7]), (4, [7, 8]), (6, [7, 8, 9, 10])):
        engine: Any = Successor(1)
        seq = Sequence([5, 7], {"target": Cache(ToyKV(), [5])}, limit=limit)
        assert list(propose(Cascade(engine).open(seq)).tokens) == tokens
