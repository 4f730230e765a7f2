"""The figures of a benchmark, on runs whose figures can be computed by hand."""

from __future__ import annotations

from typing import Any

import pytest

from specc.bench.summary import Comparison, Row, compare, rows
from specc.bench.systems import Run
from specc.bench.tasks import Task

TASKS = [Task([1], "a"), Task([2], "b"), Task([3], "b")]


def run(tokens: int, seconds: float, first: int = 1, **counts: Any) -> Run:
    return Run(list(range(tokens)), first, 0.5, seconds, **counts)


def find(table: list[Row], system: str, recipe: str, category: str) -> Row:
    return next(r for r in table if (r.system, r.recipe, r.category) == (system, recipe, category))


PLAIN = [[run(11, 1.0), run(11, 2.0), run(11, 2.0)] for _ in range(3)]
FAST = [[run(11, s), run(11, s), run(11, s)] for s in (0.5, 0.4, 1.0)]


def test_tokens_after_the_first_by_their_seconds() -> None:
    table = rows({("specc", "plain"): PLAIN, ("specc", "x"): FAST}, TASKS)
    assert [(r.recipe, r.category) for r in table] == [(m, c) for m in ("plain", "x") for c in ("a", "b", "all")]
    assert find(table, "specc", "plain", "b").tokens_per_second == 20 / 4
    whole = find(table, "specc", "x", "all")
    assert (whole.tokens_per_second, whole.seconds, whole.prompts) == (30 / 1.5, 1.5, 3)
    assert whole.spread == pytest.approx((22.5 - 15) / 20)  # rates 20, 25 and 10
    assert whole.speedup == 20 / 6


def test_prefill_counts_end_to_end() -> None:
    whole = find(rows({("specc", "plain"): PLAIN}, TASKS), "specc", "plain", "all")
    assert whole.end_to_end_tokens_per_second == 33 / 6.5
    assert whole.end_to_end_speedup == whole.speedup == 1.0


def test_a_speed_up_is_the_median_of_the_rounds_own_ratios() -> None:
    """A host that is three times slower in one round slows both."""
    plain = [[run(11, s)] for s in (1.0, 3.0, 1.0)]
    fast = [[run(11, s / 2)] for s in (1.0, 3.0, 1.0)]
    table = rows({("specc", "plain"): plain, ("specc", "x"): fast}, TASKS[:1])
    assert [r.category for r in table] == ["a", "a"]
    assert table[1].speedup == 2


def test_tokens_that_came_with_the_first_took_no_time() -> None:
    peer = [[run(11, 1.0, first=6)] * 3]
    table = rows({("specc", "plain"): PLAIN[:1], ("peer", "x"): peer}, TASKS)
    assert find(table, "peer", "x", "a").tokens_per_second == 5


def test_acceptance_is_reported_by_depth() -> None:
    drafts = run(9, 1.0, drafts=4, accepted=5, histogram=(1, 2, 0, 1))
    none = run(9, 1.0, drafts=0, accepted=0)
    table = rows({("specc", "plain"): [[none]], ("specc", "x"): [[drafts]], ("peer", "y"): [[run(9, 1.0)]]}, TASKS[:1])
    assert [r.mean_acceptance_length for r in table] == [1.0, 2.25, None]
    assert [r.acceptance_per_position for r in table] == [[], [0.75, 0.25, 0.25], None]


def test_shares_of_the_time_are_those_of_all_runs_together() -> None:
    """Three seconds, of which 1.5 in the target and 0.3 outside engines. A peer reports neither."""
    own = [[run(9, 1.0, verify_seconds=0.5, host_seconds=0.2)], [run(9, 2.0, verify_seconds=1.0, host_seconds=0.1)]]
    table = rows({("specc", "plain"): own, ("peer", "y"): [[run(9, 1.0)]] * 2}, TASKS[:1])
    shares = [(row.verify_share, row.host_share) for row in table]
    assert shares == [(pytest.approx(0.5), pytest.approx(0.1)), (None, None)]


def test_answers_are_compared_with_plain_decoding() -> None:
    other = Run([5] * 11, 1, 0.5, 1.0)
    table = rows({("specc", "plain"): PLAIN[:1], ("peer", "x"): [[other, run(11, 1.0), run(11, 1.0)]]}, TASKS)
    assert find(table, "peer", "x", "all").identical == pytest.approx(2 / 3)


def test_the_fastest_modes_are_compared() -> None:
    slow = [[run(11, 4.0)] * 3 for _ in range(3)]
    runs = {("specc", "plain"): PLAIN, ("specc", "x"): FAST, ("peer", "y"): slow, ("peer", "z"): PLAIN}
    [comparison] = compare(runs, TASKS)
    assert comparison == Comparison(system="peer", recipe="z", own_recipe="x", ratio=comparison.ratio)
    assert comparison.ratio == pytest.approx(20 / 6)
    assert compare({("specc", "plain"): PLAIN}, TASKS) == []
