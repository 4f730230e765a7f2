"""The default recipe of a bundle: which recipe wins, what the rows say, and what makes the choice provisional."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from doubles.trials import EXACT, Runs
from shell import copied

from specc.exactness import golden
from specc.exactness.golden import Case, Verdict
from specc.runtime.bundle import Bundle, open_bundle
from specc.runtime.width_invariance import WidthInvariance
from specc.tuning import trials
from specc.tuning.default_recipe import choose_default, measure
from specc.tuning.policy import DEFAULT_RECIPE, DefaultRecipePolicy

pytestmark = pytest.mark.model


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Install a double of `trials.run` that takes the seconds a token that a test gives each recipe."""

    def install(seconds: dict[str, float], verdicts: dict[tuple[str, int], Verdict] | None = None) -> Runs:
        double = Runs(seconds, verdicts or {})
        monkeypatch.setattr(trials, "run", double)
        return double

    return install


def with_cases(bundle: Bundle, count: int, monkeypatch: pytest.MonkeyPatch, tokens: int = 24) -> Bundle:
    """Return the bundle as if it had so many golden cases."""
    cases = [Case("a", [1], [1] * tokens, [1.0] * tokens)] * count
    monkeypatch.setattr(golden, "read_cases", lambda file: cases)
    return bundle


def test_a_bundles_own_recipes_are_measured(bundle: Path) -> None:
    choice = measure(open_bundle(bundle))
    assert [row["recipe"] for row in choice.rows] == ["plain", "prompt-lookup", "early-exit"]
    assert choice.rows[0]["speedup"] == 1
    for row in choice.rows:
        assert row["identical"] + row["near-tie"] + row["diverged"] == row["cases"] <= row["of_cases"]
        assert row["tokens_per_second"] > 0 and row["tokens"] > 0


@pytest.mark.parametrize("hopeless", [False, True])
def test_a_speed_up_is_the_ratio_of_the_columns(hopeless: bool, bundle: Path, runs: Any) -> None:
    runs({"plain": 0.01, "prompt-lookup": 0.1 if hopeless else 0.008, "early-exit": 0.007})
    plain, *others = measure(open_bundle(bundle)).rows
    for row in others:
        assert row["speedup"] == pytest.approx(row["tokens_per_second"] / plain["tokens_per_second"], abs=0.01)


def test_a_recipe_that_is_far_behind_runs_a_part_of_the_prompts(bundle: Path, runs: Any) -> None:
    double = runs({"plain": 0.01, "prompt-lookup": 0.1, "early-exit": 0.012})
    rows = {row["recipe"]: row for row in measure(open_bundle(bundle)).rows}
    assert (rows["prompt-lookup"]["cases"], rows["prompt-lookup"]["of_cases"]) == (1, 3)
    assert rows["prompt-lookup"]["identical"] == 1 and rows["early-exit"]["cases"] == 3
    assert ("prompt-lookup", 1) not in double.calls


def test_contenders_run_in_turns_with_plain_decoding(bundle: Path, runs: Any) -> None:
    double = runs({"plain": 0.01, "prompt-lookup": 0.008, "early-exit": 0.007})
    measure(open_bundle(bundle), policy=DefaultRecipePolicy(rounds=1))
    order = ("plain", "early-exit", "prompt-lookup")
    assert double.calls[-9:] == [(name, case) for case in range(3) for name in order]


def test_each_contender_decodes_the_policys_tokens(bundle: Path, runs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    runs({"plain": 0.01, "prompt-lookup": 0.008, "early-exit": 0.1})
    rows = measure(with_cases(open_bundle(bundle), 6, monkeypatch)).rows
    assert [row["tokens"] >= 200 for row in rows] == [True, True, False]
    assert [row["cases"] for row in rows] == [6, 6, 1]


@pytest.mark.parametrize(("cases", "seconds", "provisional"), [(6, 0.01, False), (5, 0.01, True), (6, 1.0, True)])
def test_a_choice_that_rests_on_too_little_is_provisional(
    cases: int, seconds: float, provisional: bool, bundle: Path, runs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs({"plain": seconds, "prompt-lookup": seconds / 2, "early-exit": seconds * 9})
    choice = measure(with_cases(open_bundle(bundle), cases, monkeypatch))
    assert (choice.recipe, choice.provisional) == ("prompt-lookup", provisional)


def test_plain_decoding_that_nothing_comes_near_is_not_provisional(bundle: Path, runs: Any) -> None:
    runs({"plain": 0.01, "prompt-lookup": 0.1, "early-exit": 0.1})
    choice = measure(open_bundle(bundle))
    assert (choice.recipe, choice.provisional) == ("plain", False)


def test_measuring_a_slow_model_ends(bundle: Path, runs: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """At 2 s a token, the try-out of a recipe is a few tokens, and the rounds end after one prompt."""
    double = runs({"plain": 2.0, "prompt-lookup": 1.5, "early-exit": 2.5})
    measure(with_cases(open_bundle(bundle), 6, monkeypatch))
    trial = 2 * 2 * (DEFAULT_RECIPE.least_trial_tokens + DEFAULT_RECIPE.warm_up_tokens) * 2.5
    round_of_one_prompt = 3 * 35 * 2.5
    replay_of_the_winner = 5 * 24 * 1.5
    warm_ups = 6 * DEFAULT_RECIPE.warm_up_tokens * 2.5
    assert double.clock < trial + round_of_one_prompt + replay_of_the_winner + warm_ups


@pytest.mark.parametrize(
    ("seconds", "verdicts", "default"),
    [
        ({"plain": 0.01, "prompt-lookup": 0.005, "early-exit": 0.008}, {}, "prompt-lookup"),
        (
            {"plain": 0.01, "prompt-lookup": 0.005, "early-exit": 0.008},
            {("prompt-lookup", 0): Verdict.DIVERGED},
            "early-exit",
        ),
        (
            {"plain": 0.01, "prompt-lookup": 0.005, "early-exit": 0.008},
            {("prompt-lookup", 2): Verdict.DIVERGED},
            "early-exit",
        ),
        ({"plain": 0.01, "prompt-lookup": 0.0098, "early-exit": 0.02}, {}, "plain"),
    ],
    ids=["the fastest", "one that diverges at once", "one that diverges late", "plain decoding"],
)
def test_the_winner_is_written(
    seconds: dict[str, float],
    verdicts: dict[tuple[str, int], Verdict],
    default: str,
    bundle: Path,
    tmp_path: Path,
    runs: Any,
) -> None:
    runs(seconds, verdicts)
    copy = copied(bundle, tmp_path)
    choose_default(copy)
    manifest = open_bundle(copy).manifest
    assert manifest.default_recipe == default
    assert manifest.provisional  # the bundle has three golden prompts
    assert [row["recipe"] for row in manifest.measured] == list(seconds)


def test_a_winner_replays_the_prompts_that_the_rounds_did_not_reach(
    bundle: Path, runs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 0 s for the rounds they end after one prompt; the divergence is on the last."""
    seconds = {"plain": 0.01, "prompt-lookup": 0.005, "early-exit": 0.1}
    runs(seconds, {("prompt-lookup", 5): Verdict.DIVERGED})
    choice = measure(with_cases(open_bundle(bundle), 6, monkeypatch), policy=DefaultRecipePolicy(seconds=0.0))
    assert choice.rows[1]["cases"] == 1 and choice.recipe == "plain"


def test_a_bundle_that_does_not_run_on_the_cpu_stays_as_it_is(
    bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = open_bundle(bundle)
    engines = tuple(replace(engine, backend="inductor-cuda") for engine in opened.manifest.engines)
    gpu = replace(opened, manifest=replace(opened.manifest, engines=engines))
    monkeypatch.setattr("specc.tuning.default_recipe.open_bundle", lambda path, **_: gpu)
    copy = copied(bundle, tmp_path)
    before = (copy / "manifest.json").read_bytes()
    choose_default(copy)
    assert (copy / "manifest.json").read_bytes() == before


def test_over_a_target_that_depends_on_the_width_the_rows_have_the_cost_of_exact(bundle: Path, runs: Any) -> None:
    runs({"plain": 0.01, "prompt-lookup": 0.008, "early-exit": 0.012})
    opened = open_bundle(bundle)
    assert not any("exact_speedup" in row for row in measure(opened).rows)
    near = WidthInvariance(
        backend="onnx", holds=False, difference=0.6, changed=0.02, tokens=100, slots=(12,), slots_agree=True
    )
    rows = {
        r["recipe"]: r for r in measure(replace(opened, manifest=replace(opened.manifest, width_invariance=near))).rows
    }
    assert rows["prompt-lookup"]["exact_speedup"] == pytest.approx(0.01 / 0.008 / EXACT, abs=0.001)
    assert not {"exact_speedup"} & (rows["plain"].keys() | rows["early-exit"].keys())  # One slot, and a tree.
    unequal = replace(near, slots_agree=False)  # Then no width is exact.
    others = measure(replace(opened, manifest=replace(opened.manifest, width_invariance=unequal))).rows
    assert not any("exact_speedup" in row for row in others)
