"""The verb `compile`: what it prints, what it refuses, and what it leaves when it does not finish."""

from __future__ import annotations

import contextlib
import json
import resource
import shutil
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from shell import command, refused, specc
from tiny import save_model

from specc.cli import console
from specc.cli.compile import report_table
from specc.compiler import Report
from specc.recipes.defaults import WIDTHS
from specc.runtime.bundle import open_bundle
from specc.runtime.bundle_writer import written_whole
from specc.runtime.errors import BundleError

pytestmark = [pytest.mark.torch, pytest.mark.model]


def test_json(model: Path, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "import"}\n')
    argv = ["-o", tmp_path / "m.specc", "--recipe", "prompt-lookup", "--prompt-lookup-num-tokens", 3]
    more = ["--prompts", prompts, "--golden-tokens", 5, "--max-seq-len", 64, "--dump-graphs", tmp_path / "graphs"]
    report = specc("compile", model, *argv, *more, "--json").json
    assert report["bundle"] == str(tmp_path / "m.specc")
    assert report.keys() >= {"weights_bytes", "default_recipe", "seconds", "peak_rss_bytes", "recipes"}
    chains = {f"verify-chain-{n}": n for n in WIDTHS.curve} | {"decode": 1}
    assert {e["name"]: e["slots"] for e in report["engines"]} == chains | {"prefill": 64}
    assert {e["file"] for e in report["engines"] if e["name"] in chains} == {"decode.onnx"}
    assert all(e.keys() == {"name", "slots", "layers", "file", "bytes", "backend"} for e in report["engines"])
    assert [r["recipe"] for r in report["recipes"]] == ["plain", "prompt-lookup"]
    assert list((tmp_path / "graphs").glob("*/*.py"))
    refusal = refused("compile", model, *argv)
    assert refusal == f"{tmp_path / 'm.specc'} exists; choose another output, or replace it with --overwrite"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--recipe", "jacobi", "--set", "jacobi.num_speculative_tokens=0"), "give a whole number from 1 to 127"),
        (("--recipe", "jacobi", "--num-speculative-tokens", "200"), "give a whole number from 1 to 127"),
        (("--recipe", "bild", "--assistant-model", "m", "--set", "bild.fallback_threshold=3"), "number from 0 to 1"),
        (("--recipe", "early-exit", "--set", "early-exit.tree=[(1,)]"), "path [1] needs path [0]; add it"),
        (
            ("--recipe", "jacobi", "--set", "jacobi.num_speculative_token=2"),
            "recipe jacobi has no parameter 'num_speculative_token'; did you mean 'num_speculative_tokens'?",
        ),
        (
            ("--recipe", "jacobi", "--set", "jakobi.num_speculative_tokens=2"),
            "no recipe 'jakobi'; did you mean 'jacobi'",
        ),
        (("--recipe", "superposed"), "recipe superposed needs a corpus; name one with --corpus"),
        (("--recipe", "superposed", "--corpus", "/nowhere"), "no corpus at /nowhere; give a folder of text files"),
        (("--recipe", "early-exi"), "no recipe 'early-exi'; did you mean 'early-exit'?"),
        (("--recipe", "draft-model"), "needs a draft model; name one with --assistant-model"),
        (("--recipe", ""), "--recipe '' has an empty name; write names with commas, or leave the option out"),
        (("--backend", "onnx,"), "--backend 'onnx,' has an empty name; write names with commas"),
        (
            ("--recipe", "plain", "--num-speculative-tokens", "500"),
            "no compiled recipe has a parameter 'num_speculative_tokens'; leave out --num-speculative-tokens, or add a "
            "recipe that has it, such as --recipe ",
        ),
        (("--recipe", "none.toml"), "none.toml: No such file or directory"),
        (("--recipe", "cascade", "--set", "cascade.prompt_lookup_num_tokens=126"), "needs 130 slots; 128 is the most"),
    ],
)
def test_what_no_model_can_have_is_refused_before_torch_is_loaded(
    options: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "loading", lambda what: pytest.fail(f"{what} is loaded"))
    assert message in refused("compile", "model", "-o", tmp_path / "m.specc", *options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--recipe", "quantspec-int8", "--dtype", "bf16"), "recipe quantspec-int8: rows in 8 bits stand beside"),
        (("--recipe", "quantspec", "--dtype", "fp16"), "recipe quantspec: rows in 4 bits stand beside weights in fp32"),
        (("--recipe", "early-exit", "--assistant-early-exit", "3"), "give a number of layers from 1 to 2"),
        (("--recipe", "layer-skip", "--skip-layers", "3"), "skip_layers has 3; give numbers of layers from 0 to 2"),
        (("--recipe", "plain", "--max-seq-len", "1000"), "give 16..256"),
    ],
)
def test_what_the_configuration_tells_is_refused_before_the_model_is_loaded(
    options: tuple[str, ...], message: str, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("specc.compiler.load_model", lambda *arguments: pytest.fail("the model is loaded"))
    assert message in refused("compile", model, "-o", tmp_path / "m.specc", *options)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty; give a folder with some text"),
        (b"\xff\xfe\0", "has no text in UTF-8; give a folder of text files"),
        (b" \n", "has no text in UTF-8; give a folder of text files"),
    ],
)
def test_a_corpus_without_text_is_refused_before_torch_is_loaded(
    content: bytes, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "loading", lambda what: pytest.fail(f"{what} is loaded"))
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    (corpus / "a.txt").write_bytes(content)
    message = refused("compile", "model", "-o", tmp_path / "m.specc", "--recipe", "superposed", "--corpus", corpus)
    assert message == f"the corpus {corpus} {reason}"


def test_a_recipe_file_is_compiled_under_its_own_name(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "sure.toml"
    file.write_text("base = 'layer-skip'\nlength = 'cumulative'\nacceptance = 'speculative'\n", encoding="utf-8")
    argv = ["--recipe", file, "--set", "sure.rejection_threshold=0.5", "--set", "sure.skip_layers=[1]"]
    specc("compile", model, "-o", tmp_path / "m.specc", *argv, "--golden-tokens", 4, "--max-seq-len", 64, "--json")
    (recipe,) = [r for r in open_bundle(tmp_path / "m.specc").manifest.recipes if r.name == "sure"]
    assert (recipe.drafter, recipe.acceptance, recipe.lossless) == ("layer-skip", "speculative", True)
    assert recipe.parameters == {"num_speculative_tokens": 3, "rejection_threshold": 0.5}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--recipe", "early-exi"), "no recipe 'early-exi'; did you mean 'early-exit'?"),
        (("--recipe", "draft-model"), "needs a draft model; name one with --assistant-model"),
        (("--recipe", "prompt-lookup", "--set", "early-exit.tree=None"), "add --recipe early-exit"),
        (("--recipe", "prompt-lookup", "--assistant-early-exit", "2"), "no compiled recipe has a parameter"),
        (
            ("--recipe", "early-exit", "--assistant-early-exit", "3", "--golden-tokens", "1"),
            "of layers from 1 to 2",
        ),
        (("--prompts", "/nowhere"), "cannot read prompts from /nowhere"),
        (("--max-seq-len", "1000"), "give 16..256"),
    ],
)
def test_what_cannot_be_compiled_leaves_nothing(
    options: tuple[str, ...], message: str, model: Path, tmp_path: Path
) -> None:
    assert message in refused("compile", model, "-o", tmp_path / "m.specc", *options)
    assert list(tmp_path.iterdir()) == []


def test_a_model_without_tokenizer_is_refused(model: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    shutil.copytree(model, bare, ignore=shutil.ignore_patterns("tokenizer*"))
    assert "tokenizer" in refused("compile", bare, "-o", tmp_path / "m.specc")
    assert list(tmp_path.iterdir()) == [bare]


def test_a_draft_model_with_another_tokenizer_is_refused(model: Path, tmp_path: Path) -> None:
    other = save_model(tmp_path / "other")
    file = other / "tokenizer.json"
    data = json.loads(file.read_text(encoding="utf-8"))
    first, second = sorted(data["model"]["vocab"])[10:12]
    vocabulary = data["model"]["vocab"]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    file.write_text(json.dumps(data), encoding="utf-8")
    argv = ("--recipe", "draft-model", "--assistant-model", other, "--golden-tokens", 1)
    assert "must share the target's tokenizer" in refused("compile", model, "-o", tmp_path / "m.specc", *argv)


def test_golden_prompts_of_one_token_still_measure_enough(model: Path, tmp_path: Path) -> None:
    """The first token is prefill's, so the answers go on after it."""
    report = specc(
        "compile", model, "-o", tmp_path / "m.specc", "--recipe", "prompt-lookup", "--golden-tokens", 1, "--json"
    ).json
    plain = report["recipes"][0]
    assert plain["tokens"] >= 200 and plain["cases"] == plain["of_cases"] == 6
    assert report["provisional"] is False


def drawn(bundle: Path, **changes: Any) -> str:
    """Draw the report of a compile whose manifest has these changes."""
    opened = open_bundle(bundle)
    changed = replace(opened, manifest=replace(opened.manifest, **changes))
    out = console.out()
    with out.capture() as captured:
        out.print(report_table(Report(bundle=changed, seconds=1.0, peak_rss_bytes=1)), soft_wrap=True)
    return captured.get()


def row(recipe: str, **changes: Any) -> dict[str, Any]:
    figures = {"tokens_per_second": 9.0, "speedup": 1.0, "mean_acceptance_length": 1.0, "lossless": True}
    return {
        "recipe": recipe,
        **figures,
        "identical": 6,
        "near-tie": 0,
        "diverged": 0,
        "cases": 6,
        "of_cases": 6,
    } | changes


def test_the_table_says_which_recipes_ran_on_a_part_of_the_prompts(bundle: Path) -> None:
    text = drawn(bundle, measured=(row("plain"), row("early-exit", identical=2, cases=2)))
    lines = {line.split()[0]: line for line in text.splitlines() if line.strip()}
    assert "2 of 6: 2 identical" in lines["early-exit"] and "6 identical" in text
    assert "dropped after a try-out on so many prompts" in text
    assert "try-out" not in drawn(bundle, measured=(row("plain"), row("early-exit")))


def test_the_table_has_the_cost_of_exact_where_it_was_measured(bundle: Path) -> None:
    measured = (row("plain"), row("prompt-lookup", speedup=1.3, exact_speedup=0.62, exactness="near, 2.0% differ"))
    text = drawn(bundle, measured=measured)
    lines = {line.split()[0]: line.replace("*", "").split() for line in text.splitlines() if line.strip()}
    assert lines["recipe"][1:4] == ["tokens/s", "speed-up", "--exact"]
    assert lines["prompt-lookup"][2:4] == ["1.30", "0.62"] and lines["plain"][3] == "-"
    assert "--exact: the speed-up at one width" in text
    assert "--exact" not in drawn(bundle, measured=(row("plain"),))


def test_a_provisional_default_is_called_so_with_the_remedy(bundle: Path) -> None:
    text = drawn(bundle, measured=(row("plain"),), provisional=True)
    assert "* provisional default recipe" in text
    assert f"fewer than 6 prompts and 200 tokens. Choose again with: specc tune {bundle}" in text
    assert "provisional" not in drawn(bundle, measured=(row("plain"),), provisional=False)


def test_a_full_disk_is_one_line_and_leaves_nothing(model: Path, tmp_path: Path) -> None:
    def little() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    argv = command("compile", model, "-o", tmp_path / "m.specc", "--recipe", "plain", "--golden-tokens", 2)
    result = subprocess.run(argv, capture_output=True, text=True, preexec_fn=little)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1].startswith("specc: error: cannot write")
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)]
)
def test_a_killed_compile_leaves_nothing(number: signal.Signals, status: int, model: Path, tmp_path: Path) -> None:
    argv = command("compile", model, "-o", tmp_path / "m.specc", "--recipe", "plain")

    def heed() -> None:
        signal.signal(number, signal.SIG_DFL)  # or a background job would ignore SIGINT, and so would its children

    process = subprocess.Popen(
        argv,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed,  # noqa: PLW1509  no other thread is started before it
    )
    while not list(tmp_path.iterdir()):
        time.sleep(0.05)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    # Python itself dies of the signal, which shells call 130 too, where it came while a string was executed
    assert process.returncode in (status, -number), err
    assert "Traceback" not in err
    assert list(tmp_path.iterdir()) == []


def test_what_a_compile_leaves_that_could_do_nothing_more_goes_with_the_next(model: Path, tmp_path: Path) -> None:
    argv = command("compile", model, "-o", tmp_path / "m.specc", "--recipe", "plain")
    process = subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob(".m.specc.*")):
        time.sleep(0.05)
    with pytest.raises(BundleError, match="another process writes"):
        begin_and_fail(tmp_path / "m.specc")
    assert list(tmp_path.glob(".m.specc.*"))  # it lives
    process.kill()
    process.wait(60)
    assert list(tmp_path.glob(".m.specc.*"))
    begin_and_fail(tmp_path / "m.specc")
    assert list(tmp_path.iterdir()) == []


def begin_and_fail(output: Path) -> None:
    """Begin to write a bundle, and fail."""
    with contextlib.suppress(InterruptedError), written_whole(output, False):
        raise InterruptedError
