"""Trials of recipes on golden prompts: what one run compares, and how several rounds are summed up."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from specc.exactness import golden
from specc.exactness.golden import Replayed, Verdict
from specc.runtime.bundle import open_bundle
from specc.runtime.session import Session, open_session
from specc.tuning.trials import RecipeTrials, Trial, ratio, run


def trial(case: int, seconds: float, verdict: Verdict = Verdict.IDENTICAL) -> Trial:
    return Trial(replayed=Replayed("a", case, 11, verdict), tokens=10, seconds=seconds)


def test_the_speed_is_that_of_the_median_round_of_each_case() -> None:
    trials = RecipeTrials()
    for seconds in (1.0, 9.0, 2.0):
        trials.add(trial(0, seconds))
    trials.add(trial(1, 3.0))
    assert (trials.tokens, trials.seconds, trials.speed) == (20, 5.0, 4.0)


def test_a_divergence_in_a_later_round_counts() -> None:
    trials = RecipeTrials()
    trials.add(trial(0, 1.0))
    assert not trials.diverged
    trials.add(trial(0, 1.0, Verdict.DIVERGED))
    assert trials.diverged and trials.count(Verdict.DIVERGED) == 0


def test_answers_without_decoding_compare_as_equal() -> None:
    assert RecipeTrials().speed == 0
    assert (ratio(3.0, 2.0), ratio(0.0, 0.0)) == (1.5, 1.0)


@pytest.mark.model
class TestRun:
    @pytest.fixture(scope="class")
    def session(self, bundle: Path) -> Session:
        return open_session(open_bundle(bundle))

    def test_an_answer_goes_on_after_the_golden_tokens(self, session: Session, bundle: Path) -> None:
        [case, *_] = golden.read_cases(bundle / golden.FILE)
        result = run(session, case, 0, "plain", len(case.token_ids) + 5, 1e-3)
        assert result.tokens == len(case.token_ids) + 4 and result.seconds > 0
        assert result.replayed.verdict is Verdict.IDENTICAL

    def test_a_short_answer_is_compared_with_as_many_golden_tokens(self, session: Session, bundle: Path) -> None:
        [case, *_] = golden.read_cases(bundle / golden.FILE)
        assert len(case.token_ids) > 3
        assert run(session, case, 0, "plain", 3, 1e-3).replayed.verdict is Verdict.IDENTICAL

    def test_another_token_diverges(self, session: Session, bundle: Path) -> None:
        [case, *_] = golden.read_cases(bundle / golden.FILE)
        wrong = replace(case, token_ids=[case.token_ids[0] ^ 1, *case.token_ids[1:]], gaps=[1.0] * len(case.gaps))
        assert run(session, wrong, 0, "plain", 3, 1e-3).replayed.verdict is Verdict.DIVERGED
