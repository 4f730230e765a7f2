"""`specc bench` on a tiny bundle: its figures, its turns, its peers, and what it says when something is missing."""

from __future__ import annotations

import json
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from shell import copied, edit_manifest, refused, specc

from specc import bench
from specc.bench import peers
from specc.bench.peers import worker
from specc.bench.systems import Run, SpeccSystem
from specc.cli import bench_page
from specc.runtime.bundle import open_bundle

ROW = {
    "system", "recipe", "category", "tokens_per_second", "speedup", "mean_acceptance_length", "acceptance_per_position",
    "seconds", "spread", "end_to_end_tokens_per_second", "end_to_end_speedup", "prompts", "identical",
}  # fmt: skip
QUICK = ("--rounds", 1, "--max-new-tokens", 6, "--limit", 1)
ECHO = """
class Peer:
    version, modes = "1.0", ("plain", "wrong", "broken")
    def __init__(self, job):
        self.job, self.runs = job, 0
    def generate(self, mode, ids, count, arrive):
        print("noise on standard output")
        self.runs += 1
        if mode == "broken":
            raise ValueError("no such mode here")
        if mode == "wrong" and self.runs > LIFE:
            raise SystemExit(7)
        arrive([ids[0]] * 2)
        arrive([ids[0]] * count)
        return {"drafts": 2, "accepted": 3} if mode == "wrong" else None
"""


def burn(seconds: float) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        pass


@pytest.mark.parametrize(("burnt", "longest", "rested"), [(0.3, 5.0, (0.3, 2.0)), (1.5, 0.1, (0.1, 1.0))])
def test_a_peer_answers_when_its_threads_rest_or_soon(burnt, longest, rested):
    thread = threading.Thread(target=burn, args=[burnt])
    start = time.perf_counter()
    thread.start()
    worker.rest(longest)
    assert rested[0] <= time.perf_counter() - start < rested[1]
    thread.join()


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes a peer of some source."""

    def make(name: str, source: str) -> None:
        file = tmp_path / f"{name}.py"
        file.write_text(source)
        monkeypatch.setitem(peers.PEERS, name, (str(file), f"pip install {name}"))

    return make


def questions(directory: Path) -> Path:
    """Two categories, one with a prompt too long for the tiny model's 256 rows."""
    file, long = directory / "questions.jsonl", "import os " * 300
    lines = [{"category": c, "turns": [t, "again"]} for c, t in [("a", "def f"), ("b", "import"), ("b", long)]]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return file


@pytest.mark.model
class TestFigures:
    def test_json(self, bundle: Path) -> None:
        ran = specc("bench", bundle, "--recipes", "all", *QUICK, "--json")
        told = ran.json
        assert told.keys() >= {
            "machine", "model", "rows", "step_costs", "plan", "predicted_speedup", "measured_speedup",
        }  # fmt: skip
        assert all(row.keys() == ROW for row in told["rows"])
        assert [r["recipe"] for r in told["rows"]] == ["plain", "prompt-lookup", "early-exit"]
        assert all(r["system"] == "specc" and r["category"] == "golden" for r in told["rows"])
        assert all(r["tokens_per_second"] > 0 < r["end_to_end_tokens_per_second"] for r in told["rows"])
        assert all(r["identical"] == 1 for r in told["rows"])
        assert told["rows"][0]["speedup"] == 1
        assert told["step_costs"][0].keys() == {"engine", "slots", "context", "milliseconds", "spread"}
        recipes = open_bundle(bundle).manifest.recipes
        assert {c["engine"] for c in told["step_costs"]} == {
            n for r in recipes for n in (*r.verify, *r.engines.values())
        }
        assert told["plan"] is told["predicted_speedup"] is told["measured_speedup"] is None
        assert told["memory"]["specc"] > 1e6
        assert ran.err.splitlines() == ["warm up", "round 1 of 1", "measure the engines"]

    def test_the_default_recipe_beside_plain(self, bundle: Path, tmp_path: Path) -> None:
        copy = edit_manifest(copied(bundle, tmp_path), lambda m: m.update({"default_recipe": "early-exit"}))
        rows = specc("bench", copy, *QUICK, "--json").json["rows"]
        assert [r["recipe"] for r in rows] == ["plain", "early-exit"]

    def test_recipes_are_named_in_any_of_the_ways(self, bundle: Path) -> None:
        named = ("--recipe", "early-exit", "--recipes", "plain,early-exit", "--recipes", "prompt-lookup")
        rows = specc("bench", bundle, *named, *QUICK, "--json").json["rows"]
        assert [r["recipe"] for r in rows] == ["plain", "early-exit", "prompt-lookup"]

    def test_the_plan_of_the_bundle_is_told(self, bundle: Path, tmp_path: Path) -> None:
        plan = {"recipe": "early-exit", "predicted_speedup": 1.5, "measured_speedup": 1.25}
        copy = edit_manifest(copied(bundle, tmp_path), lambda m: m["extra"].update({"plan": plan}))
        told = specc("bench", copy, *QUICK, "--json").json
        assert (told["plan"], told["predicted_speedup"], told["measured_speedup"]) == (plan, 1.5, 1.25)
        assert "plan: early-exit, predicted 1.50 x, measured 1.25 x" in specc("bench", copy, *QUICK).out

    def test_the_table(self, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", "80")
        out = specc("bench", bundle, "--recipe", "prompt-lookup", "--prompts", questions(tmp_path), *QUICK).out
        assert re.search(r"^prompt-lookup( \*)? +\d+\.\d +\d+% +\d\.\d\d +\d\.\d\d +\d\.\d\d +100%$", out, re.M)
        assert re.search(r"^x plain +a +b$", out, re.M)
        assert re.search(r"^decode +1 .*1\.00, 1\.00$", out, re.M)
        assert max(map(len, out.splitlines())) <= 80

    def test_a_prompt_that_is_too_long_is_cut_at_its_beginning(self, bundle: Path, tmp_path: Path) -> None:
        options = bench.Options(bundle, prompts=questions(tmp_path), max_new_tokens=50)
        own = SpeccSystem(open_bundle(bundle), ["plain"])
        tasks, cut = bench._tasks(own.session, options)
        assert ([t.category for t in tasks], cut) == (["a", "b", "b"], 1)
        whole = own.session.text.encode("import os " * 300)
        assert tasks[2].ids == whole[-206:]

    def test_a_prompt_may_be_a_users_message(self, bundle: Path, tmp_path: Path) -> None:
        options = bench.Options(bundle, prompts=questions(tmp_path), chat=True, limit=1)
        own = SpeccSystem(open_bundle(bundle), ["plain"])
        tasks, _ = bench._tasks(own.session, options)
        assert tasks[0].ids == own.session.text.encode("<user>def f\n<assistant>")

    def test_acceptance_by_decree(self, bundle: Path) -> None:
        argv = ("--recipe", "early-exit", "--rounds", 1, "--max-new-tokens", 120, "--synthetic-acceptance", "1,1,0")
        told = specc("bench", bundle, *argv, "--json").json
        early = told["rows"][1]
        assert early["mean_acceptance_length"] == 3
        assert early["acceptance_per_position"] == [1, 1]
        assert told["settings"]["synthetic_acceptance"] == [1, 1, 0]


@pytest.mark.model
class TestTurns:
    def test_each_round_gives_everyone_every_prompt(
        self, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        order: list[tuple[str, int]] = []

        def noted(self: SpeccSystem, mode: str, ids: list[int], count: int, seed: int) -> Run:
            order.append((mode, seed))
            return Run([1] * count, 1, 0.1, 0.1, 0, 0)

        monkeypatch.setattr(SpeccSystem, "run", noted)
        monkeypatch.setattr(bench, "step_costs", lambda *_: [])
        file = questions(tmp_path)
        bench.bench(bench.Options(bundle, ["all"], file, rounds=2))
        modes = ["plain", "prompt-lookup", "early-exit"]
        assert order[:3] == [(mode, 0) for mode in modes]
        rounds = [order[3:12], order[12:]]
        assert all(sorted(r) == sorted((mode, i) for mode in modes for i in range(3)) for r in rounds)
        assert all([i for _, i in r] == [0, 0, 0, 1, 1, 1, 2, 2, 2] for r in rounds)
        assert rounds[0][3][0] == "prompt-lookup" and rounds[0][6][0] == "early-exit"

    def test_a_prompt_is_run_whole_each_time(self, bundle: Path) -> None:
        own = SpeccSystem(open_bundle(bundle), ["plain"])
        prefill = own.session.engines["prefill"]
        own.run("plain", list(range(50)), 4, 0)
        once = prefill.calls
        own.run("plain", list(range(50)), 4, 0)
        assert prefill.calls == 2 * once > 0


@pytest.mark.model
class TestPeers:
    def test_a_peer_runs_by_each_mode_in_a_process_of_its_own(self, bundle: Path, fake: Any) -> None:
        fake("echo", ECHO.replace("LIFE", "99"))
        ran = specc("bench", bundle, "--against", "echo", "--model", bundle.parent / "model", *QUICK, "--json")
        told = ran.json
        rows = {r["recipe"]: r for r in told["rows"] if r["system"] == "echo"}
        assert rows.keys() == {"plain", "wrong"}
        assert rows["plain"]["identical"] == 0 and rows["plain"]["mean_acceptance_length"] is None
        assert rows["wrong"]["mean_acceptance_length"] == 2.5
        assert told["peers"][0]["version"] == "1.0"
        assert told["against"][0]["system"] == "echo"
        assert told["memory"]["echo"] > 1e6
        assert "echo: broken: ValueError: no such mode here" in ran.err

    def test_one_that_is_not_installed_is_left_out(self, bundle: Path, fake: Any) -> None:
        fake("other", "import no_such_module\n")
        ran = specc("bench", bundle, "--against", "other", "--model", bundle.parent / "model", *QUICK, "--json")
        assert {r["system"] for r in ran.json["rows"]} == {"specc"}
        said = "no_such_module is not installed; pip install other, or --peer-python other=PYTHON"
        assert said in ran.json["peers"][0]["problem"] and f"other: {said}" in ran.err

    def test_one_that_breaks_off_is_left_out_and_the_others_go_on(self, bundle: Path, fake: Any) -> None:
        fake("echo", ECHO.replace("LIFE", "4"))
        ran = specc("bench", bundle, "--against", "echo", "--model", bundle.parent / "model", *QUICK, "--json")
        assert {r["system"] for r in ran.json["rows"]} == {"specc"}
        assert "it ended with status 7" in ran.json["peers"][0]["problem"]

    def test_an_interpreter_that_is_none_is_told(self, bundle: Path, fake: Any) -> None:
        fake("echo", ECHO)
        argv = ("--against", "echo", "--peer-python", "echo=/nowhere/python", "--model", bundle.parent / "model")
        assert "/nowhere/python does not run" in specc("bench", bundle, *argv, *QUICK, "--json").err

    @pytest.mark.torch
    def test_transformers_gives_the_tokens_of_plain_decoding(self, bundle: Path, model: Path) -> None:
        argv = ("--against", "transformers", "--model", model, "--rounds", 1, "--max-new-tokens", 12)
        rows = [r for r in specc("bench", bundle, *argv, "--json").json["rows"] if r["system"] == "transformers"]
        assert [r["recipe"] for r in rows] == ["plain", "prompt-lookup", "early-exit"]
        assert all(r["identical"] == 1 for r in rows)


@pytest.mark.model
class TestPage:
    def test_one_file_with_three_charts(self, bundle: Path, tmp_path: Path) -> None:
        page = tmp_path / "bench.html"
        argv = ("--recipes", "all", "--prompts", questions(tmp_path), "--html", page)
        told = specc("bench", bundle, *argv, *QUICK, "--json").json
        text = page.read_text()
        assert text.count("<svg ") == text.count("</svg>") == 3
        assert "currentColor" in text and bench_page.INK not in text
        assert not re.search(r'(?:href|src)="(?!#)', text.replace("xlink:href", "href").replace('href="#', ""))
        assert all(f">{c}<" in text for c in ("a", "b", "all", "early-exit", "verify-early-exit"))
        assert f">{told['rows'][0]['tokens_per_second']:.1f}<" in text

    def test_what_a_user_wrote_is_text(self, bundle: Path, tmp_path: Path) -> None:
        file, page = tmp_path / "q.jsonl", tmp_path / "bench.html"
        file.write_text('{"prompt": "import", "category": "<script>x</script>"}\n')
        specc("bench", bundle, "--prompts", file, "--html", page, *QUICK)
        assert "<script>" not in page.read_text() and "&lt;script&gt;" in page.read_text()


@pytest.mark.model
class TestBadInput:
    @pytest.mark.parametrize(
        ("argv", "said"),
        [
            (("--recipe", "early-exi"), "no recipe 'early-exi', only plain, prompt-lookup, early-exit"),
            (("--against", "vllm"), "no peer 'vllm'; there are transformers, onnxruntime-genai"),
            (("--prompts", "/nowhere.jsonl"), "cannot read prompts from /nowhere.jsonl"),
            (("--max-new-tokens", "256"), "256 new tokens leave no room for a prompt in 256 rows; give fewer"),
            (("--synthetic-acceptance", "0.8,x"), "acceptance rates '0.8,x'; write numbers"),
            (("--peer-python", "transformers"), "--peer-python 'transformers' is not KEY=VALUE"),
            (("--html", "/nowhere/bench.html"), "there is no directory /nowhere; make it"),
        ],
    )
    def test_it_is_refused(self, argv: tuple[str, ...], said: str, bundle: Path) -> None:
        assert said in refused("bench", bundle, *argv)

    def test_a_line_that_is_no_prompt_is_named(self, bundle: Path, tmp_path: Path) -> None:
        file = tmp_path / "p.jsonl"
        file.write_text('{"prompt": "a"}\n{"promt": "b"}\n')
        assert "p.jsonl, line 2: expected" in refused("bench", bundle, "--prompts", file)

    def test_charts_without_matplotlib(self, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("specc.cli.bench.find_spec", lambda name: None)
        refusal = refused("bench", bundle, "--html", tmp_path / "b.html")
        assert refusal == "--html draws with matplotlib, which is not installed; pip install specc[bench]"
