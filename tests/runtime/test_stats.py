"""Counts of a request, by hand, in vLLM's definitions."""

import json

import pytest

from specc.runtime.draft import Accepted, Draft
from specc.runtime.stats import Stats


def counted(*kept: int | None, slots: int = 5) -> Stats:
    """Steps that proposed four tokens and kept so many of them; None proposed nothing."""
    stats = Stats("any")
    for k in kept:
        draft = Draft.chain([7] * (1 if k is None else slots))
        stats.count(draft, Accepted(tuple(range(1 + (k or 0))), 7))
    return stats


def test_mean_acceptance_length_is_one_more_than_the_mean_of_accepted_tokens():
    """Drafts of four tokens, of which four, none and two are accepted: 1 + 6 / 3; a rate of 6 / 12."""
    stats = counted(4, 0, None, 2)
    assert (stats.drafts, stats.drafted, stats.accepted) == (3, 12, 6)
    assert stats.mean_acceptance_length == 3.0
    assert stats.draft_acceptance_rate == 0.5
    assert stats.to_json()["acceptance_histogram"] == [1, 0, 1, 0, 1]


def test_without_a_draft_every_step_gives_one_token():
    stats = counted(None, None)
    assert (stats.mean_acceptance_length, stats.draft_acceptance_rate) == (1.0, 0.0)
    assert stats.to_json()["acceptance_histogram"] == []


def test_time_is_of_decoding_without_the_first_token():
    """Two steps of one second; the engines ran for 1.2 s of them; eleven tokens, the first from prefill."""
    stats = Stats("any", new_tokens=11)
    stats.step(((3, 1.0), (0, 0.0), 50.0), ((4, 1.5), (4, 0.2), 51.0))
    stats.step(((4, 1.5), (4, 0.2), 60.0), ((5, 1.8), (8, 0.4), 61.0))
    assert (stats.target_calls, stats.draft_calls) == (2, 8)
    assert stats.tokens_per_second == pytest.approx(5.0)
    assert stats.overhead_fraction == pytest.approx(0.4)


def test_nothing_is_divided_by_nothing():
    stats = Stats("any")
    assert (stats.tokens_per_second, stats.overhead_fraction, stats.mean_acceptance_length) == (0.0, 0.0, 1.0)
    assert json.loads(json.dumps(stats.to_json()))["recipe"] == "any"
