"""Counts of a request, by hand, in vLLM's definitions."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace
from typing import Any

import pytest

from specc.runtime.draft import Accepted, Draft
from specc.runtime.stats import GuardCounts, Meter, Stats


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


def test_time_is_of_decoding_without_the_first_token_and_without_the_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps of one second with nine between them; engines ran for 1.2 s; eleven tokens, the first from prefill."""
    now = [50.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    target: Any = SimpleNamespace(calls=3, seconds=1.0)
    drafter: Any = SimpleNamespace(calls=0, seconds=0.0)
    stats = Stats(recipe="any", new_tokens=11)
    meter = Meter(stats, [target], [drafter])
    for target_seconds, drafter_seconds in ((0.5, 0.2), (0.3, 0.2)):
        meter.start()
        target.calls += 1
        target.seconds += target_seconds
        drafter.calls += 4
        drafter.seconds += drafter_seconds
        now[0] += 1
        meter.stop(Draft.chain([7] * 5), Accepted((0, 1, 2), 7))
        now[0] += 9
    assert (stats.target_calls, stats.draft_calls, stats.drafts, stats.accepted) == (2, 8, 2, 4)
    assert stats.seconds == pytest.approx(2.0)
    assert stats.engine_seconds == pytest.approx(1.2)
    assert stats.tokens_per_second == pytest.approx(5.0)
    assert stats.overhead_fraction == pytest.approx(0.4)


def test_the_calls_of_all_engines_are_added_up() -> None:
    targets: Any = [SimpleNamespace(calls=1, seconds=0.0), SimpleNamespace(calls=2, seconds=0.0)]
    meter = Meter(stats := Stats(recipe="any"), targets, ())
    for engine in targets:
        engine.calls += 1
    meter.start()
    meter.stop(Draft.chain([7]), Accepted((0,), 7))
    assert (stats.target_calls, stats.draft_calls, stats.drafts) == (2, 0, 0)


def test_nothing_is_divided_by_nothing() -> None:
    stats = Stats(recipe="any")
    assert (stats.tokens_per_second, stats.overhead_fraction, stats.mean_acceptance_length) == (0.0, 0.0, 1.0)
    assert json.loads(json.dumps(stats.to_json()))["recipe"] == "any"


def test_the_guards_counts_are_a_part_of_the_json() -> None:
    assert Stats(recipe="any").to_json()["guard"] is None
    stats = Stats(recipe="any", guard=GuardCounts(3, 40))
    assert stats.to_json()["guard"] == {"switches": 3, "plain_steps": 40}
