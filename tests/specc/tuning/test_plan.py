"""A plan in the manifest: written and read without a change, and refused where it has another form."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from doubles.tune_plan import tune_plan
from shell import copied, edit_manifest

from specc.runtime.bundle import open_bundle
from specc.runtime.errors import BundleError
from specc.tuning.plan import TunePlan

KEYS = [
    "recipe", "parameters", "predicted_speedup", "measured_speedup", "tried", "predicted", "verify",
    "single_threaded", "trees", "acceptance", "curve", "step_costs", "compiled", "machine", "prompts", "tokens",
    "prices",
]  # fmt: skip


def test_a_plan_is_read_as_it_was_written() -> None:
    plan = tune_plan()
    data = json.loads(json.dumps(plan.to_json()))
    assert TunePlan.from_json(data) == plan
    assert list(data) == KEYS


def test_the_json_of_a_plan_holds_plain_data() -> None:
    data = tune_plan().to_json()
    assert data["trees"] == {"early-exit": {"tree": [[0], [0, 0]], "predicted_gain": 1.1}}
    assert data["acceptance"] == {"early-exit": {"by_depth": [0.5, 0.25], "by_rank": [0.5]}}
    assert data["curve"][1] == {"slots": 4, "context": 64, "milliseconds": 3.0, "ratio": 1.5}
    assert data["step_costs"] == [{"engine": "decode", "slots": 1, "context": 64, "milliseconds": 2.0, "spread": 0.1}]
    assert data["prices"] == {"run": 0.03, "lane": 0.001, "slot": 0.002}
    assert data["compiled"] == {"plain": {"verify": ["decode"], "parameters": {}}}


def test_a_plan_of_an_older_specc_has_no_prices() -> None:
    data = tune_plan().to_json()
    del data["prices"]
    assert TunePlan.from_json(data) == replace(tune_plan(), prices=None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"recipe": 3}, "manifest.extra.plan.recipe: expected str"),
        ({"surprise": 1}, "manifest.extra.plan: unknown field 'surprise'"),
        ({"tried": {}}, "manifest.extra.plan.tried: expected list"),
        ({"prices": {"run": 1.0}}, "manifest.extra.plan.prices: {'run': 1.0} fits none of Prices"),
        ({"curve": [{"slots": 1}]}, "manifest.extra.plan.curve[0]: field 'context' is missing"),
    ],
)
def test_a_plan_of_another_form_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(BundleError) as refusal:
        TunePlan.from_json(tune_plan().to_json() | change)
    assert str(refusal.value).startswith(message)


@pytest.mark.model
class TestManifest:
    def test_a_bundle_that_was_never_tuned_has_no_plan(self, bundle: Path) -> None:
        assert TunePlan.of(open_bundle(bundle).manifest) is None

    def test_a_stored_plan_is_found_again_and_nothing_else_changes(self, bundle: Path) -> None:
        manifest = open_bundle(bundle).manifest
        stored = tune_plan().stored_in(manifest)
        assert TunePlan.of(stored) == tune_plan()
        assert {key: value for key, value in stored.extra.items() if key != "plan"} == manifest.extra

    def test_a_plan_in_a_file_is_read(self, bundle: Path, tmp_path: Path) -> None:
        plan = tune_plan().to_json()
        copy = edit_manifest(copied(bundle, tmp_path), lambda manifest: manifest["extra"].update(plan=plan))
        assert TunePlan.of(open_bundle(copy).manifest) == tune_plan()
