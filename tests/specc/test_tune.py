"""The tuner: its cost model by hand, its plan on a tiny bundle, and that nothing is written before the end."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from shell import copied, refused, specc

from specc import tune as module
from specc.costs import StepCost
from specc.runtime.bundle import open_bundle
from specc.runtime.recipe import Recipe
from specc.tune import Step, acceptance, candidates, predict, tune

COSTS = {
    "decode": StepCost("decode", 1, 64, 10.0, 0.0),
    "wide": StepCost("wide", 4, 64, 15.0, 0.0),
    "draft": StepCost("draft", 1, 64, 2.0, 0.0),
}
CHAIN = Recipe(
    "chain", "chain", ("decode", "wide"), engines={"draft": "draft"}, parameters={"num_speculative_tokens": 3}
)


def test_a_prediction_is_tokens_by_the_time_of_their_calls() -> None:
    steps = [Step(3, 3, 3.0, ()), Step(3, 0, 3.0, ()), Step(0, 0, 0.0, ())]
    milliseconds = 2 * (3 * 2.0 + 15.0 + 1.0) + (10.0 + 1.0)
    assert predict(CHAIN, CHAIN, steps, COSTS, 1.0) == pytest.approx(1000 * (4 + 1 + 1) / milliseconds)


def test_shorter_drafts_are_predicted_from_longer_ones() -> None:
    shorter = candidates(CHAIN)[0]
    assert shorter.parameters == {"num_speculative_tokens": 1}
    steps = [Step(3, 3, 3.0, ()), Step(3, 1, 3.0, ())]
    assert predict(shorter, CHAIN, steps, COSTS, 0.0) == pytest.approx(1000 * 4 / (2 * (2.0 + 15.0)))


def test_lengths_are_tried_where_they_say_all_of_a_draft() -> None:
    assert [c.parameters["num_speculative_tokens"] for c in candidates(CHAIN)] == [1, 2, 3]
    tree = Recipe("tree", "tree", ("wide",), parameters={"tree": [-1, 0, 0], "num_speculative_tokens": 2})
    assert candidates(tree) == [tree]


def test_acceptance_counts_what_was_there_to_be_right() -> None:
    steps = [
        Step(3, 2, 0.0, ((0, 2), (0, 1), (None, 0))),
        Step(3, 1, 0.0, ((1, 2), (None, 1))),
        Step(3, 0, 0.0, ((None, 2),)),
    ]
    assert acceptance(steps) == {"by_depth": [0.667, 0.5], "by_rank": [0.4, 0.333]}


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
