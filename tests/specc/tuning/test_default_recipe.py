"""The default recipe of a bundle: how the recipes are measured, and which one wins."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from shell import copied

from specc.exactness import golden
from specc.exactness.golden import Case, Replayed, Verdict
from specc.runtime.bundle import open_bundle
from specc.runtime.session import Session
from specc.tuning.default_recipe import choose_default, measure, speed
from specc.tuning.policy import DefaultRecipePolicy

TOKENS = 11  # In each answer; prefill gives one of them.


def test_speed_is_decoding_alone() -> None:
    results = [
        Replayed("a", 0, 11, Verdict.IDENTICAL, seconds=1.0),
        Replayed("a", 1, 21, Verdict.IDENTICAL, seconds=2.0),
    ]
    assert speed(results) == 10


class Replays:
    """A record of replays, which take the time that a test gives each recipe."""

    def __init__(self, seconds: dict[str, float], verdicts: dict[str, Verdict] | None = None) -> None:
        self.seconds, self.verdicts = seconds, verdicts or {}
        self.calls: list[tuple[str, int]] = []

    def __call__(self, session: Session, cases: list[Case], recipes: Iterable[str], tolerance: float) -> list[Replayed]:
        [recipe] = recipes
        self.calls.append((recipe, len(cases)))
        verdict = self.verdicts.get(recipe, Verdict.IDENTICAL)
        return [Replayed(recipe, i, TOKENS, verdict, seconds=self.seconds[recipe]) for i in range(len(cases))]


@pytest.fixture
def replays(monkeypatch: pytest.MonkeyPatch) -> Any:
    def install(seconds: dict[str, float], verdicts: dict[str, Verdict] | None = None) -> Replays:
        fake = Replays(seconds, verdicts)
        monkeypatch.setattr(golden, "replay", fake)
        return fake

    return install


@pytest.mark.model
class TestMeasure:
    def test_a_row_for_each_recipe(self, bundle: Path) -> None:
        rows = measure(open_bundle(bundle))
        assert [row["recipe"] for row in rows] == ["plain", "prompt-lookup", "early-exit"]
        assert rows[0]["speedup"] == 1
        for row in rows:
            assert row["identical"] + row["near-tie"] + row["diverged"] in (1, 3) and row["tokens_per_second"] > 0

    def test_a_recipe_that_is_far_behind_runs_one_case(self, bundle: Path, replays: Any) -> None:
        fake = replays({"plain": 0.1, "prompt-lookup": 1.0, "early-exit": 0.12})
        rows = {row["recipe"]: row for row in measure(open_bundle(bundle))}
        assert ("prompt-lookup", 2) not in fake.calls and ("early-exit", 2) in fake.calls
        assert rows["prompt-lookup"]["identical"] == 1 and rows["early-exit"]["identical"] == 3

    def test_the_fastest_run_again_in_turns_with_plain_decoding(self, bundle: Path, replays: Any) -> None:
        fake = replays({"plain": 0.1, "prompt-lookup": 0.05, "early-exit": 0.08})
        measure(open_bundle(bundle), policy=DefaultRecipePolicy(finalists=1, reruns=2))
        assert fake.calls[-4:] == [("plain", 3), ("prompt-lookup", 3)] * 2

    def test_slow_plain_decoding_makes_the_first_cases_stand_for_all(self, bundle: Path, replays: Any) -> None:
        fake = replays({"plain": 1.0, "prompt-lookup": 0.5, "early-exit": 2.0})
        measure(open_bundle(bundle))
        assert [call for call in fake.calls if call[0] == "plain"][:2] == [("plain", 1)] * 2
        assert max(count for _, count in fake.calls) == 2


@pytest.mark.model
class TestChoose:
    @pytest.mark.parametrize(
        ("seconds", "verdicts", "default"),
        [
            ({"plain": 0.1, "prompt-lookup": 0.05, "early-exit": 0.08}, {}, "prompt-lookup"),
            (
                {"plain": 0.1, "prompt-lookup": 0.05, "early-exit": 0.08},
                {"prompt-lookup": Verdict.DIVERGED},
                "early-exit",
            ),
            ({"plain": 0.1, "prompt-lookup": 0.098, "early-exit": 0.2}, {}, "plain"),
        ],
        ids=["the fastest", "the fastest that is exact", "plain decoding"],
    )
    def test_the_winner_is_written(
        self, seconds: dict[str, float], verdicts: dict[str, Verdict], default: str, bundle: Path, tmp_path: Path,
        replays: Any,
    ) -> None:  # fmt: skip
        replays(seconds, verdicts)
        copy = copied(bundle, tmp_path)
        choose_default(copy)
        manifest = open_bundle(copy).manifest
        assert manifest.default_recipe == default
        assert [row["recipe"] for row in manifest.measured] == list(seconds)

    def test_a_bundle_that_does_not_run_on_the_cpu_stays_as_it_is(
        self, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened = open_bundle(bundle)
        engines = tuple(replace(engine, backend="inductor-cuda") for engine in opened.manifest.engines)
        gpu = replace(opened, manifest=replace(opened.manifest, engines=engines))
        monkeypatch.setattr("specc.tuning.default_recipe.open_bundle", lambda path: gpu)
        copy = copied(bundle, tmp_path)
        before = (copy / "manifest.json").read_bytes()
        choose_default(copy)
        assert (copy / "manifest.json").read_bytes() == before
