"""The instruments of `chance` themselves."""

from __future__ import annotations

import numpy as np
import pytest
from chance import Script, chi_square_rejects, distribution, total_variation


def test_every_way_to_decide_is_taken_once_with_its_probability() -> None:
    """Two draws, the second only after some firsts: probabilities multiply along a path and add over paths."""

    def run(rng: Script) -> tuple[int, bool | None]:
        first = rng.pick(np.array([0.5, 0.25, 0.0, 0.25]))
        return (first, rng.bernoulli(0.1)) if first else (0, None)

    expected = {(0, None): 0.5, (1, True): 0.025, (1, False): 0.225, (3, True): 0.025, (3, False): 0.225}
    assert distribution(run) == pytest.approx(expected)
    assert total_variation(distribution(run), expected) < 1e-15


def test_total_variation_counts_what_only_one_side_has() -> None:
    assert total_variation({"a": 1.0}, {"b": 1.0}) == 1
    assert total_variation({"a": 0.5, "b": 0.5}, {"a": 0.75, "b": 0.25}) == 0.25


@pytest.mark.parametrize(("shift", "rejected"), [(0.0, False), (0.06, True)])
def test_chi_square_tells_a_biased_die(shift: float, rejected: bool) -> None:
    probs = np.array([0.4, 0.3, 0.2, 0.1])
    counts = np.random.default_rng(0).multinomial(4000, probs + np.array([shift, -shift, 0, 0]))
    assert chi_square_rejects(dict(enumerate(map(int, counts))), dict(enumerate(probs))) is rejected


def test_chi_square_is_calibrated() -> None:
    """One in a million is too rare to count, but nothing fair may be rejected in a thousand trials."""
    rng, probs = np.random.default_rng(0), np.array([0.55, 0.25, 0.15, 0.04, 0.01])
    trials = (dict(enumerate(map(int, rng.multinomial(300, probs)))) for _ in range(1000))
    assert not any(chi_square_rejects(counts, dict(enumerate(probs))) for counts in trials)


def test_chi_square_rejects_the_impossible() -> None:
    assert chi_square_rejects({"a": 99, "b": 1}, {"a": 1.0, "b": 0.0})
