"""A benchmark of a tiny bundle: its report, and what becomes of the peers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from doubles.peers import MakePeer, echo, peer_maker
from doubles.tune_plan import tune_plan
from shell import copied, edit_manifest

from specc.bench import Options, Report, bench
from specc.bench.peer_jobs import PeerOptions
from specc.bench.peers import PeerOutcome
from specc.bench.policy import BenchPolicy
from specc.runtime.bundle import open_bundle
from specc.runtime.errors import RecipeError

pytestmark = pytest.mark.model

ROW = {
    "system", "recipe", "category", "tokens_per_second", "speedup", "mean_acceptance_length", "acceptance_per_position",
    "seconds", "spread", "end_to_end_tokens_per_second", "end_to_end_speedup", "prompts", "identical", "changed",
    "verify_share", "host_share",
}  # fmt: skip
REPORT = [
    "date", "specc", "machine", "model", "rows", "step_costs", "plan", "predicted_speedup", "measured_speedup",
    "settings", "memory", "peers", "against", "exactness", "warnings",
]  # fmt: skip


@pytest.fixture
def quick(bundle: Path) -> Callable[..., Report]:
    """Return a function that runs a short benchmark."""

    def run(**options: Any) -> Report:
        defaults: dict[str, Any] = {"bundle": bundle, "rounds": 1, "max_new_tokens": 6, "limit": 1}
        return bench(Options(**defaults | options))

    return run


@pytest.fixture
def make_peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakePeer:
    return peer_maker(tmp_path, monkeypatch)


def test_the_report_has_a_row_for_each_recipe_and_a_cost_for_each_engine(
    bundle: Path, quick: Callable[..., Report]
) -> None:
    titles: list[str] = []
    report = quick(recipes=["all"], stage=lambda title, done, total: titles.append(title))
    assert [row.recipe for row in report.rows] == ["plain", "prompt-lookup", "early-exit"]
    assert all(row.system == "specc" and row.category == "golden" for row in report.rows)
    assert all(row.tokens_per_second > 0 < row.end_to_end_tokens_per_second for row in report.rows)
    assert all(row.identical == 1 for row in report.rows)
    assert report.rows[0].speedup == 1
    recipes = open_bundle(bundle).manifest.recipes
    assert {c.engine for c in report.step_costs} == {n for r in recipes for n in (*r.verify, *r.engines.values())}
    assert report.plan is None
    assert (report.memory["specc"] or 0) > 1e6
    assert list(dict.fromkeys(titles)) == ["warm up", "round 1 of 1", "measure the engines"]


def test_the_json_has_the_fields_of_every_version(quick: Callable[..., Report]) -> None:
    data = quick().to_json()
    assert list(data) == REPORT
    assert all(row.keys() == ROW for row in data["rows"])
    assert data["step_costs"][0].keys() == {"engine", "slots", "context", "milliseconds", "spread"}
    assert data["plan"] is data["predicted_speedup"] is data["measured_speedup"] is None
    assert data["settings"].keys() == {
        "prompts",
        "count",
        "cut",
        "chat",
        "max_new_tokens",
        "rounds",
        "synthetic_acceptance",
    }
    assert data["model"].keys() == {
        "bundle",
        "source",
        "architecture",
        "layers",
        "vocab_size",
        "context",
        "dtype",
        "default_recipe",
        "verify_engines",
        "engine_kinds",
        "weights_bytes",
    }


def test_the_default_recipe_runs_beside_plain(bundle: Path, tmp_path: Path, quick: Callable[..., Report]) -> None:
    copy = edit_manifest(copied(bundle, tmp_path), lambda manifest: manifest.update(default_recipe="early-exit"))
    assert [row.recipe for row in quick(bundle=copy).rows] == ["plain", "early-exit"]


def test_the_plan_of_the_bundle_is_in_the_report(bundle: Path, tmp_path: Path, quick: Callable[..., Report]) -> None:
    plan = tune_plan()
    copy = edit_manifest(copied(bundle, tmp_path), lambda manifest: manifest["extra"].update(plan=plan.to_json()))
    report = quick(bundle=copy)
    assert report.plan == plan
    data = report.to_json()
    assert (data["plan"], data["predicted_speedup"], data["measured_speedup"]) == (plan.to_json(), 1.5, 1.25)


def test_a_synthetic_acceptance_takes_the_place_of_the_rule_and_the_guard(quick: Callable[..., Report]) -> None:
    report = quick(recipes=["early-exit"], max_new_tokens=120, rates=[1, 1, 0])
    early = report.rows[1]
    assert early.mean_acceptance_length == 3
    assert early.acceptance_per_position == [1, 1]
    assert report.settings.synthetic_acceptance == [1, 1, 0]


def test_contexts_that_do_not_fit_are_cut(quick: Callable[..., Report], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specc.bench.BENCH", BenchPolicy(contexts=(64, 100_000)))
    contexts = {cost.context for cost in quick().step_costs}
    assert len(contexts) == 2 and 64 in contexts and max(contexts) < 1000


class TestPeers:
    def test_a_peer_runs_in_each_mode_in_a_process_of_its_own(
        self, model: Path, quick: Callable[..., Report], make_peer: MakePeer
    ) -> None:
        make_peer("echo", echo())
        report = quick(peers=PeerOptions(names=["echo"], model=str(model)))
        rows = {row.recipe: row for row in report.rows if row.system == "echo"}
        assert rows.keys() == {"plain", "wrong"}
        assert rows["plain"].identical == 0 and rows["plain"].mean_acceptance_length is None
        assert rows["wrong"].mean_acceptance_length == 2.5
        failed = {"broken": "ValueError: no such mode here"}
        assert report.peers == [PeerOutcome(name="echo", version="1.0", modes=["plain", "wrong"], failed=failed)]
        assert report.against[0].system == "echo"
        assert (report.memory["echo"] or 0) > 1e6

    def test_a_peer_that_is_not_installed_is_left_out(
        self, model: Path, quick: Callable[..., Report], make_peer: MakePeer
    ) -> None:
        make_peer("other", "import no_such_module\n")
        report = quick(peers=PeerOptions(names=["other"], model=str(model)))
        assert {row.system for row in report.rows} == {"specc"}
        message = "no_such_module is not installed; pip install other, or --peer-python other=PYTHON"
        assert message in (report.peers[0].problem or "")

    def test_a_peer_that_breaks_off_is_left_out_and_the_others_go_on(
        self, model: Path, quick: Callable[..., Report], make_peer: MakePeer
    ) -> None:
        make_peer("echo", echo(life=4))
        report = quick(peers=PeerOptions(names=["echo"], model=str(model)))
        assert {row.system for row in report.rows} == {"specc"} and report.memory.keys() == {"specc"}
        assert "it ended with status 7" in (report.peers[0].problem or "")
        assert report.peers[0].version == "1.0"

    def test_a_peer_of_no_name_is_refused_before_anything_runs(self, quick: Callable[..., Report]) -> None:
        with pytest.raises(RecipeError, match="no peer 'vllm'; there are transformers, onnxruntime-genai"):
            quick(peers=PeerOptions(names=["vllm"]))

    @pytest.mark.slow
    @pytest.mark.torch
    def test_transformers_gives_the_tokens_of_plain_decoding(self, model: Path, quick: Callable[..., Report]) -> None:
        report = quick(peers=PeerOptions(names=["transformers"], model=str(model)), limit=None, max_new_tokens=12)
        rows = [row for row in report.rows if row.system == "transformers"]
        assert [row.recipe for row in rows] == ["plain", "prompt-lookup", "early-exit"]
        assert all(row.identical == 1 for row in rows)


def test_a_mode_whose_rounds_differ_is_warned_of(quick: Callable[..., Report]) -> None:
    report = quick()
    assert report.warnings == [] and {row.spread for row in report.rows} == {None}, "one round has no spread"
    rows = [replace(row, spread=0.16 if row.recipe == "plain" else 0.15) for row in report.rows]
    (line,) = replace(report, rows=rows).warnings
    assert line.startswith(
        "the rounds of a mode differ by more than 15% (plain 16%), so its speed is unsure; run again"
    )
