"""What a recipe's steps show: how often its tokens are right, and what its calls cost."""

from __future__ import annotations

from pathlib import Path

import pytest

import specc
from specc.tuning.acceptance_stats import AcceptanceRates, Step, acceptance_rates, calibrate


def test_rates_count_only_what_was_there_to_be_right() -> None:
    steps = [
        Step(3, 2, {}, ((0, 2), (0, 1), (None, 0))),
        Step(3, 1, {}, ((1, 2), (None, 1))),
        Step(3, 0, {}, ((None, 2),)),
    ]
    assert acceptance_rates(steps) == AcceptanceRates(by_depth=(0.667, 0.5), by_rank=(0.4, 0.333))


def test_no_step_has_no_rates() -> None:
    assert acceptance_rates([]) == AcceptanceRates(by_depth=(), by_rank=())


@pytest.mark.model
class TestCalibrate:
    def test_it_counts_the_tokens_that_were_asked_for(self, bundle: Path) -> None:
        session = specc.load(bundle).conversation
        advances: list[int] = []
        recipes = [session.bundle.recipe(name) for name in ("prompt-lookup", "early-exit")]
        calibrations = calibrate(session, [[1, 2, 3], [4, 5] * 8], 30, recipes, advances.append)
        assert list(calibrations) == ["prompt-lookup", "early-exit"] and advances == [1, 2]
        for calibration in calibrations.values():
            tokens = sum(1 + step.accepted for step in calibration.steps)
            assert tokens == 2 * 29  # Prefill gave the first token of each answer.
            assert calibration.outside > 0 and all(cost > 0 for cost in calibration.costs.values())

    def test_a_step_without_a_draft_calls_no_draft_engine(self, bundle: Path) -> None:
        session = specc.load(bundle).conversation
        recipe = session.bundle.recipe("early-exit")
        steps = calibrate(session, [[4, 5] * 8], 20, [recipe])["early-exit"].steps
        assert any(step.drafted for step in steps)
        for step in steps:
            assert (step.draft_calls.keys() == {"draft-early-exit"}) == (step.drafted > 0)
