"""The tuner: its cost model by hand, its plan on a tiny bundle, and that nothing is written before the end."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from shell import copied, refused, specc

import specc as specc_package
from specc.recipes.defaults import WIDTHS
from specc.runtime.bundle import open_bundle
from specc.runtime.engines import ort_cpu
from specc.runtime.recipe import Recipe
from specc.tuning import step_costs
from specc.tuning import tune as module
from specc.tuning.acceptance_stats import Step, acceptance, calibrate
from specc.tuning.speedup_model import Call, candidates, predict, trimmed
from specc.tuning.step_costs import StepCost
from specc.tuning.tune import tune

CALLS = {"decode": Call(1, 10.0), "two": Call(2, 11.0), "wide": Call(4, 15.0), "draft": Call(1, 2.0)}
DRAFTED = {"draft": 3.0}
CHAIN = Recipe(
    "chain", "chain", ("decode", "wide"), engines={"draft": "draft"}, parameters={"num_speculative_tokens": 3}
)


def test_a_prediction_is_tokens_by_the_time_of_their_calls() -> None:
    steps = [Step(3, 3, DRAFTED, ()), Step(3, 0, DRAFTED, ()), Step(0, 0, {}, ())]
    cost = 2 * (3 * 2.0 + 15.0 + 1.0) + (10.0 + 1.0)
    assert predict(CHAIN, CHAIN, steps, CALLS, 1.0) == pytest.approx((4 + 1 + 1) / cost)


def test_shorter_drafts_are_predicted_from_longer_ones() -> None:
    shorter = candidates(CHAIN, CALLS)[0]
    assert shorter.parameters == {"num_speculative_tokens": 1}
    steps = [Step(3, 3, DRAFTED, ()), Step(3, 1, DRAFTED, ())]
    assert predict(shorter, CHAIN, steps, CALLS, 0.0) == pytest.approx(4 / (2 * (2.0 + 15.0)))


def test_lengths_are_tried_where_they_say_all_of_a_draft() -> None:
    assert [c.parameters["num_speculative_tokens"] for c in candidates(CHAIN, CALLS)] == [1, 2, 3]
    tree = Recipe("tree", "tree", ("wide",), parameters={"tree": [-1, 0, 0], "num_speculative_tokens": 2})
    assert candidates(tree, CALLS) == [tree]


def test_a_shorter_draft_needs_no_wider_engine_than_holds_it() -> None:
    wide = replace(CHAIN, verify=("decode", "two", "wide"))
    assert [c.verify for c in candidates(wide, CALLS)] == [("decode", "two"), wide.verify, wide.verify]


def test_a_width_that_hardly_helps_is_left_out() -> None:
    recipe = replace(CHAIN, verify=("decode", "two", "wide"))

    def kept(steps: list[Step]) -> tuple[str, ...]:
        return trimmed(recipe, lambda r: predict(r, recipe, steps, CALLS, 0.0)).verify

    long, short = Step(3, 3, {}, ()), Step(1, 1, {}, ())
    assert kept([long] * 9 + [short]) == ("decode", "two", "wide")  # 4 of 146 milliseconds
    assert kept([long] * 99 + [short]) == ("decode", "wide")  # 4 of 1496


def test_acceptance_counts_what_was_there_to_be_right() -> None:
    steps = [
        Step(3, 2, {}, ((0, 2), (0, 1), (None, 0))),
        Step(3, 1, {}, ((1, 2), (None, 1))),
        Step(3, 0, {}, ((None, 2),)),
    ]
    assert acceptance(steps) == {"by_depth": [0.667, 0.5], "by_rank": [0.4, 0.333]}


@pytest.mark.parametrize(("wanted", "threads"), [(0, 4), (1, 1), (9, 4)])
def test_an_engine_takes_no_more_threads_than_the_process(
    wanted: int, threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPECC_THREADS", "4")
    assert ort_cpu.session_options(wanted).intra_op_num_threads == threads


@pytest.mark.model
def test_one_thread_must_be_faster_by_3_per_cent(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, names = open_bundle(bundle), ["decode", "draft-early-exit"]
    times = {0: (10.0, 10.0), 1: (9.8, 9.6)}

    def timed(session: Any, engines: Any, contexts: Any, repeats: int) -> list[StepCost]:
        took = times[session.bundle.manifest.engines[0].threads]
        return [StepCost(name, 1, 64, ms, 0.0) for name, ms in zip(engines, took, strict=True)]

    monkeypatch.setattr(step_costs, "step_costs", timed)
    assert step_costs.faster_alone(opened, names, 64) == []  # tests run on one thread
    monkeypatch.setattr(step_costs, "threads", lambda: 2)
    assert step_costs.faster_alone(opened, names, 64) == ["draft-early-exit"]


@pytest.mark.model
def test_a_calibration_counts_the_tokens_that_were_asked_for(bundle: Path) -> None:
    session = specc_package.load(bundle)
    recipes, told = [session.bundle.recipe(name) for name in ("prompt-lookup", "early-exit")], []
    found = calibrate(session, [[1, 2, 3], [4, 5] * 8], 30, recipes, told.append)
    assert list(found) == ["prompt-lookup", "early-exit"] and told == [1, 2]
    for got in found.values():
        assert sum(1 + step.accepted for step in got.steps) == 2 * 29  # prefill gave the first of each
        assert got.outside > 0 and all(cost > 0 for cost in got.costs.values())


@pytest.mark.model
class TestPlan:
    def test_it_is_written_with_what_it_rests_on(self, bundle: Path, tmp_path: Path) -> None:
        mine = copied(bundle, tmp_path)
        plan = specc("tune", mine, "--limit", 2, "--max-new-tokens", 8, "--json").json
        manifest = open_bundle(mine).manifest
        assert manifest.extra["plan"] == plan and manifest.default_recipe == plan["recipe"]
        assert {c["engine"] for c in plan["step_costs"]} <= {e.name for e in manifest.engines}
        assert plan["predicted"].keys() == {r.name for r in manifest.recipes} - {"plain"}
        assert all(t["measured_speedup"] > 0 for t in plan["tried"])
        assert specc("test", mine).status == 0

    def test_a_second_plan_begins_with_the_recipes_as_compiled(self, bundle: Path, tmp_path: Path) -> None:
        mine = copied(bundle, tmp_path)
        first, second = (tune(mine, tokens=8, limit=2)["compiled"] for _ in range(2))
        assert first == second == {
            r.name: {"verify": list(r.verify), "parameters": dict(r.parameters)}
            for r in open_bundle(bundle).manifest.recipes
        }  # fmt: skip

    def test_what_one_thread_runs_faster_is_loaded_with_one(
        self, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mine = copied(bundle, tmp_path)
        monkeypatch.setattr(module, "faster_alone", lambda bundle, names, context: ["draft-early-exit"])
        plan = tune(mine, tokens=8, limit=1)
        assert plan["single_threaded"] == ["draft-early-exit"]
        assert [e.name for e in open_bundle(mine).manifest.engines if e.threads == 1] == ["draft-early-exit"]
        asked, options = [], ort_cpu.session_options
        monkeypatch.setattr(
            "specc.runtime.engines.ort.session_options", lambda *wanted: asked.append(wanted) or options(*wanted)
        )
        engines = specc_package.load(mine).engines
        engines.load("decode")
        engines.load("draft-early-exit")
        assert asked == [(0,), (1,)]

    def test_compiling_with_it_measures_more_widths(self, model: Path, tmp_path: Path) -> None:
        output = tmp_path / "tuned.specc"
        options = ["--tune", "--golden-tokens", 4, "--recipe", "prompt-lookup"]
        assert specc("compile", model, "-o", output, *options).status == 0
        manifest = open_bundle(output).manifest
        plan, widths = manifest.extra["plan"], [1, *WIDTHS.curve]
        assert [row["slots"] for row in plan["curve"] if row["context"] == 64] == widths
        assert all(row["ratio"] > 0 for row in plan["curve"])
        assert {"decode", *(f"verify-chain-{n}" for n in WIDTHS.curve)} < {e.name for e in manifest.engines}
        lookup = next(r for r in manifest.recipes if r.name == "prompt-lookup")
        slots = [next(e.block.slots for e in manifest.engines if e.name == name) for name in lookup.verify]
        assert slots == sorted(slots) and slots[0] == 1
        assert slots[-1] > lookup.parameters["prompt_lookup_num_tokens"]
        assert specc("test", output).status == 0
        told = specc("tune", output, "--limit", 1, "--max-new-tokens", 4).out
        assert "slots, measured" in told and "after 64" in told

    def test_plain_decoding_is_the_plan_where_nothing_beats_it(
        self, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "BETTER", 1e9)
        mine = copied(bundle, tmp_path)
        plan = tune(mine, tokens=8, limit=1)
        assert plan["recipe"] == "plain" == open_bundle(mine).manifest.default_recipe

    def test_an_interrupted_tune_leaves_the_bundle_as_it_was(
        self, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mine = copied(bundle, tmp_path)
        before = {f.name: f.read_bytes() for f in mine.iterdir()}

        def interrupted(*_: object) -> None:
            raise KeyboardInterrupt

        monkeypatch.setattr(module, "_compare", interrupted)
        with pytest.raises(KeyboardInterrupt):
            tune(mine, tokens=4, limit=1)
        assert {f.name: f.read_bytes() for f in mine.iterdir()} == before

    def test_a_prompts_file_that_is_none_is_named_by_its_line(self, bundle: Path, tmp_path: Path) -> None:
        file = tmp_path / "p.jsonl"
        file.write_text(json.dumps({"prompt": "a"}) + "\n{}\n")
        assert "p.jsonl, line 2" in refused("tune", bundle, "--prompts", file)
        file.write_text("")
        assert "holds no prompt" in refused("tune", bundle, "--prompts", file)
