"""Trees that would be faster than the compiled ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from specc.runtime.bundle import open_bundle
from specc.tuning.acceptance_stats import Calibration, Step
from specc.tuning.job import Job, prepare
from specc.tuning.policy import TUNING
from specc.tuning.step_costs import StepCost
from specc.tuning.tree_proposals import propose_trees

pytestmark = pytest.mark.model


def costs(job: Job, milliseconds: float) -> dict[str, StepCost]:
    """Let a step of each engine cost 1 ms, and so much more for each slot."""
    slots = {name: job.session.engines[name].slots for name in job.engines}
    return {name: StepCost(name, n, 64, 1 + milliseconds * n, 0.0) for name, n in slots.items()}


def calibrations(job: Job, step: Step) -> dict[str, Calibration]:
    return {recipe.name: Calibration([step], {}, 0.0) for recipe in job.drafting}


def test_dear_slots_and_bad_drafts_make_a_smaller_tree(bundle: Path) -> None:
    job = prepare(open_bundle(bundle), ["x"], 8, TUNING)
    bad = Step(3, 0, {"draft-early-exit": 1.0}, ((None, 2),))
    proposals = propose_trees(job, calibrations(job, bad), costs(job, 5.0))
    assert list(proposals) == ["early-exit"]
    assert len(proposals["early-exit"].tree) == 1 and proposals["early-exit"].predicted_gain > 1.05


def test_a_recipe_that_never_drafted_gets_no_proposal(bundle: Path) -> None:
    job = prepare(open_bundle(bundle), ["x"], 8, TUNING)
    assert propose_trees(job, calibrations(job, Step(0, 0, {}, ((None, 0),))), costs(job, 5.0)) == {}
