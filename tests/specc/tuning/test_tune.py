"""The tuner on a tiny bundle: its plan, what the plan changes, and that nothing is written before the end."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from shell import copied, specc

import specc as specc_package
from specc.exactness import golden
from specc.exactness.golden import Case, Replayed, Verdict
from specc.recipes.defaults import WIDTHS
from specc.runtime.bundle import open_bundle
from specc.runtime.bundle_writer import write_manifest
from specc.runtime.device import Device
from specc.runtime.engines import ort_cpu
from specc.runtime.errors import BundleError, SpeccWarning
from specc.runtime.session import Session
from specc.tuning import job as job_module
from specc.tuning import tune as module
from specc.tuning.plan import CompiledRecipe, TunePlan
from specc.tuning.policy import TUNING
from specc.tuning.tune import tune

pytestmark = pytest.mark.model

# What most tests need to be measured, and no more.
QUICK = replace(TUNING, contexts=(64,), cost_rounds=1, finalist_rounds=1)


def test_it_is_written_with_what_it_rests_on(bundle: Path, tmp_path: Path) -> None:
    copy = copied(bundle, tmp_path)
    titles: list[str] = []
    plan = tune(copy, tokens=8, limit=2, stage=lambda title, done, total: titles.append(title))
    manifest = open_bundle(copy).manifest
    assert TunePlan.of(manifest) == plan and manifest.default_recipe == plan.recipe
    assert {cost.engine for cost in plan.step_costs} <= {engine.name for engine in manifest.engines}
    assert plan.predicted.keys() == {recipe.name for recipe in manifest.recipes} - {"plain"}
    assert all(finalist.measured_speedup > 0 for finalist in plan.tried)
    assert list(dict.fromkeys(titles)) == [
        "measure the steps",
        "calibrate",
        "calibrate shorter drafts",
        "run the best",
        "replay the golden outputs",
        "write the plan",
    ]
    assert specc("test", copy).status == 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_bundle_that_cannot_be_written_is_refused_before_anything_is_measured(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    copy, opened = copied(bundle, tmp_path), Path.open
    before = sorted(copy.rglob("*"))

    def refuse(self: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        if self.parent == copy and "r" not in mode:
            raise OSError(number, os.strerror(number))
        return opened(self, mode, *args, **options)

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(module, "prepare", lambda *_: pytest.fail("something was measured"))
    with pytest.raises(BundleError, match=re.escape(f"{copy}/manifest.json cannot be written")):
        tune(copy)
    assert sorted(copy.rglob("*")) == before


def test_a_bundle_that_is_overwritten_while_it_is_tuned_keeps_its_new_manifest(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = copied(bundle, tmp_path)
    plan = module._plan

    def overwritten(*args: Any) -> TunePlan:
        manifest = open_bundle(copy).manifest
        write_manifest(copy, replace(manifest, default_recipe="plain", extra={"by": "another process"}))
        return plan(*args)

    monkeypatch.setattr(module, "_plan", overwritten)
    with pytest.raises(BundleError, match="was changed while this process worked on it; start again"):
        tune(copy, tokens=8, limit=1, policy=QUICK)
    assert open_bundle(copy).manifest.extra == {"by": "another process"}


@pytest.mark.slow  # It tunes twice.
def test_a_second_plan_begins_with_the_recipes_as_compiled(bundle: Path, tmp_path: Path) -> None:
    copy = copied(bundle, tmp_path)
    first, second = (tune(copy, tokens=8, limit=1, policy=QUICK).compiled for _ in range(2))
    recipes = open_bundle(bundle).manifest.recipes
    as_compiled = {r.name: CompiledRecipe(verify=r.verify, parameters=r.parameters) for r in recipes}
    assert first == second == as_compiled


@pytest.mark.slow
def test_what_one_thread_runs_faster_is_loaded_with_one(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = copied(bundle, tmp_path)
    monkeypatch.setattr(job_module, "faster_on_one_thread", lambda bundle, names, context: ["draft-early-exit"])
    plan = tune(copy, tokens=8, limit=1, policy=QUICK)
    assert plan.single_threaded == ("draft-early-exit",)
    assert [e.name for e in open_bundle(copy).manifest.engines if e.threads == 1] == ["draft-early-exit"]
    requests: list[int] = []

    def recording(threads: int, device: Device) -> Any:
        requests.append(threads)
        return ort_cpu.session_options(threads, device)

    monkeypatch.setattr("specc.runtime.engines.ort.session_options", recording)
    engines = specc_package.load(copy).engines
    engines.load("decode")
    engines.load("draft-early-exit")
    assert requests == [0, 1]


def test_compiling_with_it_measures_more_widths(model: Path, tmp_path: Path) -> None:
    output = tmp_path / "tuned.specc"
    options = ["--tune", "--golden-tokens", 4, "--recipe", "prompt-lookup"]
    assert specc("compile", model, "-o", output, *options).status == 0
    manifest = open_bundle(output).manifest
    plan = TunePlan.of(manifest)
    assert plan
    assert [point.slots for point in plan.curve if point.context == 64] == [1, *WIDTHS.curve]
    assert all(point.ratio > 0 for point in plan.curve)
    assert {"decode", *(f"verify-chain-{n}" for n in WIDTHS.curve)} < {e.name for e in manifest.engines}
    lookup = next(r for r in manifest.recipes if r.name == "prompt-lookup")
    slots = [next(e.block.slots for e in manifest.engines if e.name == name) for name in lookup.verify]
    assert slots == sorted(slots) and slots[0] == 1
    assert slots[-1] > lookup.parameters["prompt_lookup_num_tokens"]
    assert specc("test", output).status == 0


def test_plain_decoding_is_the_plan_if_nothing_beats_it(bundle: Path, tmp_path: Path) -> None:
    copy = copied(bundle, tmp_path)
    plan = tune(copy, tokens=8, limit=1, policy=replace(QUICK, least_speedup=1e9))
    assert plan.recipe == "plain" == open_bundle(copy).manifest.default_recipe
    assert plan.measured_speedup == 1.0 and plan.tried


def test_a_recipe_that_fails_the_golden_test_is_never_the_plan(bundle: Path, tmp_path: Path) -> None:
    copy = copied(bundle, tmp_path)
    first, *others = golden.read_cases(copy / golden.FILE)
    foreign = replace(
        first,
        token_ids=[*first.token_ids[:-1], first.token_ids[-1] ^ 1],
        gaps=[*first.gaps[:-1], 5.0],
    )
    golden.write_cases([foreign, *others], copy / golden.FILE)
    manifest = open_bundle(bundle).manifest
    unchanged = {name: spec for name, spec in manifest.files.items() if name != golden.FILE}
    write_manifest(copy, replace(manifest, files=unchanged))
    with pytest.warns(SpeccWarning, match=rf"fails the golden test in 1 of {1 + len(others)} cases, so it is not the"):
        plan = tune(copy, tokens=8, limit=1, policy=replace(QUICK, least_speedup=0.0))
    assert plan.recipe == "plain" == open_bundle(copy).manifest.default_recipe


@pytest.mark.slow
def test_the_next_fastest_recipe_takes_the_place_of_one_that_fails(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replayed: list[str] = []

    def replay(session: Session, cases: Sequence[Case], recipes: Iterable[str], tolerance: float) -> list[Replayed]:
        replayed.extend(recipes)
        verdict = Verdict.DIVERGED if len(replayed) == 1 else Verdict.NEAR_TIE
        return [Replayed(replayed[-1], number, 4, verdict) for number in range(len(cases))]

    monkeypatch.setattr(golden, "replay", replay)
    with pytest.warns(SpeccWarning, match="fails the golden test"):
        plan = tune(copied(bundle, tmp_path), tokens=8, limit=1, policy=replace(QUICK, least_speedup=0.0))
    fastest_first = sorted(plan.tried, key=lambda finalist: -finalist.measured_speedup)
    assert replayed == [finalist.recipe for finalist in fastest_first[:2]]
    assert plan.recipe == replayed[1]


def test_an_interrupted_tune_leaves_the_bundle_as_it_was(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = copied(bundle, tmp_path)
    before = {file.name: file.read_bytes() for file in copy.iterdir()}

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "rerun_finalists", interrupted)
    with pytest.raises(KeyboardInterrupt):
        tune(copy, tokens=4, limit=1, policy=QUICK)
    assert {file.name: file.read_bytes() for file in copy.iterdir()} == before


def test_prices_of_runs_together_are_measured_where_a_bundle_has_lanes(bundle: Path) -> None:
    policy = replace(TUNING, cost_rounds=2)
    several = open_bundle(Path(__file__).parents[2] / "bundles/schema-2")
    prices = module.measure_prices(job_module.prepare(several, ["def"], 8, policy))
    assert prices is not None and prices.run > 0
    assert module.measure_prices(job_module.prepare(open_bundle(bundle), ["def"], 8, policy)) is None
