"""Counts of a request, by hand, in vLLM's definitions."""

from __future__ import annotations

import json

import pytest

from specc.runtime.draft import Accepted, Draft
from specc.runtime.stats import GuardCounts, Stats


def counted(*accepted: int | None) -> Stats:
    """Return the stats of steps that proposed four tokens and accepted so many of them; None proposed nothing."""
    stats = Stats(recipe="any")
    for number in accepted:
        draft = Draft.chain([7] * (1 if number is None else 5))
        stats.count(draft, Accepted(tuple(range(1 + (number or 0))), 7))
    return stats


def test_mean_acceptance_length_is_one_more_than_the_mean_of_accepted_tokens() -> None:
    """Drafts of four tokens, of which four, none and two are accepted: 1 + 6 / 3; a rate of 6 / 12."""
    stats = counted(4, 0, None, 2)
    assert (stats.drafts, stats.drafted, stats.accepted) == (3, 12, 6)
    assert stats.mean_acceptance_length == 3.0
    assert stats.draft_acceptance_rate == 0.5
    assert stats.to_json()["acceptance_histogram"] == [1, 0, 1, 0, 1]


def test_without_a_draft_every_step_gives_one_token() -> None:
    stats = counted(None, None)
    assert (stats.mean_acceptance_length, stats.draft_acceptance_rate) == (1.0, 0.0)
    assert stats.to_json()["acceptance_histogram"] == []


def test_the_first_token_counts_for_no_speed() -> None:
    """Eleven tokens in two seconds, of which 1.2 in engines; the first one came from prefill."""
    stats = Stats(recipe="any", new_tokens=11, seconds=2.0, engine_seconds=1.2, verify_seconds=0.8)
    assert stats.tokens_per_second == pytest.approx(5.0)
    assert stats.overhead_fraction == pytest.approx(0.4)
    assert stats.verify_fraction == pytest.approx(0.4)


def test_nothing_is_divided_by_nothing() -> None:
    stats = Stats(recipe="any")
    assert (stats.tokens_per_second, stats.overhead_fraction, stats.mean_acceptance_length) == (0.0, 0.0, 1.0)
    assert json.loads(json.dumps(stats.to_json()))["recipe"] == "any"


def test_the_guards_counts_are_a_part_of_the_json() -> None:
    assert Stats(recipe="any").to_json()["guard"] is None
    stats = Stats(recipe="any", guard=GuardCounts(3, 40))
    assert stats.to_json()["guard"] == {"switches": 3, "plain_steps": 40}
