"""The verb `bench`: its tables, what it says on standard error, and what it refuses."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from doubles.peers import QUICK, MakePeer, echo, peer_maker, questions
from doubles.tune_plan import tune_plan
from shell import copied, edit_manifest, fits, refused, specc

from specc import bench
from specc.cli.bench import _lines
from specc.runtime.extras import package

pytestmark = pytest.mark.model


@pytest.fixture
def make_peer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakePeer:
    return peer_maker(tmp_path, monkeypatch)


def test_the_tables(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out = specc("bench", bundle, "--recipe", "prompt-lookup", "--prompts", questions(tmp_path), *QUICK).out
    assert re.search(r"^prompt-lookup( \*)? +\d+\.\d +- +\d\.\d\d +\d\.\d\d +\d\.\d\d +100%$", out, re.M)
    assert re.search(r"^x plain +a +b$", out, re.M)
    assert re.search(r"^decode +1 .*1\.00, 1\.00$", out, re.M)
    legend = "slots: tokens that one step computes; N rows: after N rows of text in the cache; decodes: times as"
    assert legend in " ".join(out.split())
    fits(out, 80)


def test_the_spread_is_shown_of_two_rounds_and_not_of_one(bundle: Path, tmp_path: Path) -> None:
    for rounds, in_table, in_page in ((1, "-", "\N{EN DASH}"), (2, r"\d+%", r"\d+ %")):
        page = tmp_path / f"{rounds}.html"
        out = specc("bench", bundle, *QUICK, "--rounds", rounds, "--html", page).out
        assert re.search(rf"^plain( \*)? +\d+\.\d +{in_table} +1\.00 ", out, re.M)
        first, second = re.findall(r"<table>.*?</table>", page.read_text(), re.S)
        assert re.search(rf"<td>[\d.]+</td>\s<td>{in_page}</td>", first)
        assert re.search(rf"<td>[\d.]+</td>\s<td>{in_page}</td></tr>", second)
        rows = specc("bench", bundle, *QUICK, "--rounds", rounds, "--json").json
        assert {row["spread"] is None for row in (*rows["rows"], *rows["step_costs"])} == {rounds == 1}


def test_the_json_is_on_standard_output_and_the_progress_is_not(bundle: Path) -> None:
    result = specc("bench", bundle, *QUICK, "--json")
    assert result.json["settings"]["rounds"] == 1
    assert result.err.splitlines() == ["warm up", "round 1 of 1", "measure the engines"]


def test_the_gpu_is_named_if_it_computed(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("specc.machine.gpu_name", lambda: "NVIDIA H200")
    report = bench.bench(bench.Options(bundle=bundle, limit=1, rounds=1, max_new_tokens=4))
    assert report.machine.gpu == "" and "NVIDIA" not in _lines(report)[-1]
    on_gpu = replace(report, machine=replace(report.machine, gpu="NVIDIA H200"))
    assert _lines(on_gpu)[-1] == f"NVIDIA H200, {_lines(report)[-1]}"


def test_recipes_may_be_named_in_any_of_the_ways(bundle: Path) -> None:
    for names in (
        ("--recipe", "early-exit", "--recipes", "plain,early-exit", "--recipes", "prompt-lookup"),
        ("--recipe", "early-exit, prompt-lookup", "--recipe", "plain"),
    ):
        rows = specc("bench", bundle, *names, *QUICK, "--json").json["rows"]
        assert [row["recipe"] for row in rows] == ["plain", "early-exit", "prompt-lookup"]


def test_a_replay_takes_recipes_with_commas(bundle: Path) -> None:
    rows = specc("test", bundle, "--recipe", "early-exit,plain", "--json").json["recipes"]
    assert {row["recipe"] for row in rows} == {"plain", "early-exit"}


def test_the_plan_of_the_bundle_has_a_line(bundle: Path, tmp_path: Path) -> None:
    plan = tune_plan().to_json()
    copy = edit_manifest(copied(bundle, tmp_path), lambda manifest: manifest["extra"].update(plan=plan))
    out = specc("bench", copy, *QUICK).out
    assert "plan: early-exit, predicted 1.50 x, measured 1.25 x by specc tune" in out


def test_probabilities_are_read_from_their_option(bundle: Path) -> None:
    argv = ("--recipe", "early-exit", "--synthetic-acceptance", "1,1,0", *QUICK)
    assert specc("bench", bundle, *argv, "--json").json["settings"]["synthetic_acceptance"] == [1, 1, 0]
    assert "synthetic acceptance: 1, 1, 0" in specc("bench", bundle, *argv).out


def test_a_peer_and_its_failures_have_lines(bundle: Path, model: Path, make_peer: MakePeer) -> None:
    make_peer("echo", echo())
    result = specc("bench", bundle, "--against", "echo", "--model", model, *QUICK)
    assert "echo: broken: ValueError: no such mode here" in result.err
    assert re.search(r"^echo: specc's \S+ is \d+\.\d\d x its fastest mode, (plain|wrong)$", result.out, re.M)
    assert re.search(r"^memory: specc [\d.]+ [MG]B, echo [\d.]+ MB$", result.out, re.M)


def test_a_peer_that_does_not_run_has_a_line(bundle: Path, model: Path, make_peer: MakePeer) -> None:
    make_peer("echo", echo())
    argv = ("--against", "echo", "--peer-python", "echo=/nowhere/python", "--model", model)
    assert "echo: /nowhere/python does not run" in specc("bench", bundle, *argv, *QUICK, "--json").err


class TestBadInput:
    @pytest.mark.parametrize(
        ("argv", "message"),
        [
            (("--recipe", "early-exi"), "no recipe 'early-exi', only plain, prompt-lookup, early-exit"),
            (("--against", "vllm"), "no peer 'vllm'; there are transformers, onnxruntime-genai"),
            (("--prompts", "/nowhere.jsonl"), "cannot read prompts from /nowhere.jsonl"),
            (("--max-new-tokens", "256"), "256 new tokens leave no room for a prompt in 256 rows; give fewer"),
            (("--synthetic-acceptance", "0.8,x"), "acceptance rates '0.8,x'; write numbers"),
            (("--peer-python", "transformers"), "--peer-python 'transformers' is not KEY=VALUE"),
            (("--html", "/nowhere/bench.html"), "there is no directory /nowhere; make it"),
            (("--html", "/dev/full"), "--html: /dev/full is not a file; name another one"),
            (("--html", "/"), "--html: / is not a file; name another one"),
            (("--recipe", "early-exit", "--exact"), "recipe early-exit verifies trees, so it has no exact width"),
        ],
    )
    def test_it_is_refused(self, argv: tuple[str, ...], message: str, bundle: Path) -> None:
        assert message in refused("bench", bundle, *argv)

    def test_a_line_that_is_not_a_prompt_is_named(self, bundle: Path, tmp_path: Path) -> None:
        file = tmp_path / "p.jsonl"
        file.write_text('{"prompt": "a"}\n{"promt": "b"}\n')
        assert "p.jsonl, line 2: expected" in refused("bench", bundle, "--prompts", file)

    def test_charts_without_matplotlib_are_refused(
        self, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("specc.cli.bench.find_spec", lambda name: None)
        refusal = refused("bench", bundle, "--html", tmp_path / "b.html")
        assert refusal == f"--html draws with matplotlib, which is not installed; pip install {package('bench')}"


def test_recipes_over_a_target_that_depends_on_the_width_are_near(bundle: Path, tmp_path: Path) -> None:
    near = {
        "backend": "onnx", "holds": False, "difference": 0.6, "changed": 0.02, "tokens": 9, "slots": [12],
        "slots_agree": True,
    }  # fmt: skip
    copy = edit_manifest(copied(bundle, tmp_path), lambda manifest: manifest.update(width_invariance=near))
    out = specc("bench", copy, "--recipe", "prompt-lookup", *QUICK).out
    assert re.search(r"^prompt-lookup.* near$", out, re.M) and re.search(r"^plain.* yes$", out, re.M)
    assert "near, 2.0% differ: tokens depend on the width of a step, but not with --exact" in out
    exact = specc("bench", copy, "--recipe", "prompt-lookup", "--exact", *QUICK, "--json").json
    assert exact["exactness"] == {"plain": "yes", "prompt-lookup": "yes"}
    assert "near" not in specc("bench", bundle, "--recipe", "prompt-lookup", *QUICK).out
