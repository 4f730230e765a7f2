"""`specc test --runtime`: another runtime's answers, compared with the golden ones."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from shell import refused, specc

from specc.exactness import golden
from specc.exactness.golden import Verdict, read_cases
from specc.exactness.replay import prove
from specc.runtime.bundle import Bundle

FROZEN = Path(__file__).parents[2] / "bundles" / "schema-3"
CASES = read_cases(FROZEN / "golden.jsonl")
RECIPES = ("plain", "lookahead")
pytestmark = pytest.mark.process

Lines = list[dict[str, Any]]


def program(directory: Path, edit: Callable[[Lines], Any] = lambda lines: None, end: str = "") -> Path:
    """Write a program that prints the golden outputs by two recipes, edited, and then runs `end`."""
    lines: Lines = [
        {"recipe": recipe, "case": number, "token_ids": list(case.token_ids), "seconds": 0.5}
        for recipe in RECIPES
        for number, case in enumerate(CASES)
    ]
    edit(lines)
    (directory / "answers").write_text("".join(json.dumps(line) + "\n" for line in lines))
    file = directory / "runtime"
    file.write_text(f'#!/bin/sh\n[ "$1 $2" = "{FROZEN} --json" ] || exit 3\ncat {directory}/answers\n{end}\n')
    file.chmod(0o755)
    return file


def test_the_recipes_that_a_runtime_has_are_compared(tmp_path: Path) -> None:
    runtime = str(program(tmp_path))
    proof = prove(FROZEN, runtime=runtime)
    assert proof.passed and proof.perplexity is None and proof.to_json()["runtime"] == runtime
    assert [(row.recipe, row.counts.identical) for row in proof.rows()] == [(name, 4) for name in RECIPES]
    assert proof.rows()[0].tokens_per_second == pytest.approx(31 / 0.5)
    others = [recipe.name for recipe in proof.bundle.manifest.recipes if recipe.name not in RECIPES]
    assert others and proof.left_out == dict.fromkeys(others, "it gave no answer and no reason")


def test_the_recipes_that_a_runtime_leaves_out_are_named_with_the_reason(tmp_path: Path) -> None:
    left_out = {"recipe": "medusa", "left_out": "it has no drafter medusa"}
    runtime = program(tmp_path, lambda lines: lines.insert(0, left_out))
    result = specc("test", FROZEN, "--runtime", runtime, "--junit", tmp_path / "report.xml")
    line = f"medusa: left out by {runtime}: it has no drafter medusa"  # It is folded where the terminal ends.
    assert result.status == 0 and "".join(line.split()) in "".join(result.out.split())
    assert '<skipped message="it has no drafter medusa" />' in (tmp_path / "report.xml").read_text()
    assert (
        specc("test", FROZEN, "--runtime", runtime, "--json").json["left_out"]["medusa"] == "it has no drafter medusa"
    )
    assert specc("test", FROZEN, "--recipe", "plain", "--json").json["left_out"] == {}


def test_a_recipe_that_a_runtime_leaves_out_is_refused_before_anything_is_decoded(tmp_path: Path) -> None:
    left_out = {"recipe": "medusa", "left_out": "it has no drafter medusa"}
    runtime = program(tmp_path, lambda lines: lines.insert(0, left_out), "exec sleep 60")
    start = time.monotonic()
    line = refused("test", FROZEN, "--runtime", runtime, "--recipe", "plain,medusa")
    assert line == f"the runtime {runtime} has no recipe medusa: it has no drafter medusa; name another one"
    assert time.monotonic() - start < 30


def test_a_program_that_nobody_reads_on_may_clean_up_before_it_ends(tmp_path: Path) -> None:
    runtime, line = tmp_path / "runtime", json.dumps({"recipe": "medusa", "left_out": "it has no drafter medusa"})
    end = f"kill $!; echo > {tmp_path}/clean; exit 3"
    runtime.write_text(f"#!/bin/sh\nsleep 60 &\ntrap '{end}' TERM\necho '{line}'\nwait\n")
    runtime.chmod(0o755)
    refused("test", FROZEN, "--runtime", runtime, "--recipe", "plain,medusa")
    assert (tmp_path / "clean").exists()


@pytest.mark.parametrize("option", [("--runtime", "rust"), ("--runtime", "/"), ("--recipe", "medus"), ("--exact",)])
def test_what_cannot_be_is_refused_before_a_file_is_read(
    option: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(bundle: Bundle) -> None:
        raise AssertionError("the golden cases were read")

    monkeypatch.setattr(golden, "checked_cases", read)
    refused("test", FROZEN, "--runtime", program(tmp_path), *option)


def test_a_token_that_differs_is_named_with_the_bundles_two_best_logits(tmp_path: Path) -> None:
    def change(lines: Lines) -> None:
        lines[6]["token_ids"][3] ^= 1
        lines[6]["token_ids"][9] = 0
        lines[7]["token_ids"].pop()

    runtime = str(program(tmp_path, change))
    first, second = prove(FROZEN, ["lookahead"], runtime=runtime).divergences()
    assert (first.recipe, first.case, first.at, first.verdict) == ("lookahead", 2, 3, Verdict.DIVERGED)
    assert (second.case, second.at, second.got) == (3, 31, None)
    for divergence in (first, second):
        case = CASES[divergence.case]
        (token, best), (_, other) = divergence.best
        assert token == case.token_ids[divergence.at]
        assert best - other == pytest.approx(case.gaps[divergence.at], abs=1e-4)
    result = specc("test", FROZEN, "--runtime", runtime, "--junit", tmp_path / "report.xml")
    assert result.status == 1 and "2 diverged" in result.out
    assert f"and the bundle's are {first.best[0][1]:.6f} of token " in (tmp_path / "report.xml").read_text()


@pytest.mark.parametrize(
    ("edit", "end", "message"),
    [
        (lambda lines: lines.clear(), "", f"replayed no recipe of {FROZEN}; compile it with another recipe"),
        (lambda lines: lines.pop(), "", "replayed the cases [0, 1, 2] by lookahead, not each of the 4 once"),
        (lambda lines: lines[0].update(recipe="x"), "", "this bundle has no recipe 'x'"),
        (lambda lines: lines[0].update(token_ids=["x"]), "", "token_ids are not whole numbers"),
        (lambda lines: lines[0].update(case="0"), "", "case is not a whole number"),
        (lambda lines: lines[0].update(seconds=float("nan")), "", "seconds is not a number of 0 or more"),
        (lambda lines: lines[0].update(seconds="1"), "", "which is not an answer"),
        (lambda lines: lines[0].update(token_ids=None), "", "token_ids are not whole numbers"),
        (lambda lines: None, "kill -9 $$", "it ended with status -9"),
        (lambda lines: lines.clear(), "exit 1", "it ended with status 1"),
        (
            lambda lines: lines.clear(),
            "echo too little memory >&2; exit 1",
            "it ended with status 1: too",
        ),
        (
            lambda lines: lines.__setitem__(slice(None), [{"recipe": "medusa", "left_out": "it is missing"}]),
            "echo too little memory >&2; exit 1",
            "it ended with status 1: too",
        ),
        (
            lambda lines: None,
            "echo too little memory >&2; exit 3",
            "it ended with status 3: too",
        ),
        (lambda lines: None, "head -c 1000000 /dev/zero >&2; echo too little memory >&2; exit 2", "cannot replay"),
        (lambda lines: lines[0].pop("case"), "", "it must print an object with recipe, case and token_ids"),
        (lambda lines: None, "echo words", "printed 'words', which is not an answer"),
        (lambda lines: None, "echo too little memory >&2; exit 2", "cannot replay"),
    ],
)
def test_a_runtime_that_does_not_answer_is_one_line(
    edit: Callable[[Lines], Any], end: str, message: str, tmp_path: Path
) -> None:
    line = refused("test", FROZEN, "--runtime", program(tmp_path, edit, end))
    assert message in line and ("echo too" in end) == ("too little memory" in line)


def test_a_recipe_or_an_option_that_a_runtime_lacks_is_refused(tmp_path: Path) -> None:
    runtime = program(tmp_path)
    line = refused("test", FROZEN, "--runtime", runtime, "--recipe", "medusa")
    assert "has no recipe medusa; of this bundle it has plain, lookahead" in line
    assert "leave out --exact or --runtime" in refused("test", FROZEN, "--runtime", runtime, "--exact")


def test_a_runtime_that_is_not_there_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    assert "the program specc-replay, which is not on PATH" in refused("test", FROZEN, "--runtime", "c")
    assert "no program, and none of python, c, node, web" in refused("test", FROZEN, "--runtime", "rust")


def test_a_program_that_does_not_start_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "runtime"
    file.write_bytes(b"\x00\x01")
    file.chmod(0o755)
    assert f"{file} does not start (" in refused("test", FROZEN, "--runtime", file)
