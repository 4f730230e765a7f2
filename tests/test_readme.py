"""The README holds: its length, its quick start, its figures' recipes.

`tests/docs/test_names.py` checks its commands, options, files and links; `tests/docs/test_generate.py` its table of
recipes.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from pages import ROOT, blocks, read
from shell import specc

import specc as library
from specc.recipes import METHODS
from specc.runtime.model import Model
from specc.runtime.stream import Generation

README = read(ROOT / "README.md")
QUICK_START = README.partition("## Quick start")[2].partition("\n## ")[0]
SMALL = {  # options that make a command of the quick start short
    "compile": ["--recipe", "prompt-lookup", "--golden-tokens", "4", "--max-seq-len", "256"],
    "generate": ["--max-new-tokens", "8"],
    "bench": ["--rounds", "1", "--limit", "1", "--max-new-tokens", "4"],
    "tune": ["--max-new-tokens", "4", "--limit", "1"],
}


def commands() -> list[list[str]]:
    """Return the words of each command of the quick start."""
    (shell,) = blocks(QUICK_START, "sh")
    return [shlex.split(line, comments=True) for line in shell.text.splitlines()]


def test_it_is_read_in_a_minute() -> None:
    assert len(README.splitlines()) <= 140


def test_the_recipes_of_the_measured_tables_exist() -> None:
    first = README.partition("\n## ")[0]
    rows = re.findall(r"^\| `([a-z0-9-]+)` \|", first, re.MULTILINE)
    assert len(rows) >= 5 and set(rows) <= set(METHODS)
    speed = README.partition("## What speed to expect")[2].partition("\n## ")[0]
    cells = [re.sub(r"\(.*?\)", "", line.split("|")[2]) for line in speed.splitlines() if line.startswith("| ")]
    measured = [name for cell in cells for name in re.findall(r"([a-z][a-z-]+) \d\.\d\d", cell)]
    assert len(measured) >= 5 and set(measured) <= set(METHODS)


def test_the_quick_start_shows_these_verbs() -> None:
    """The test below runs them all."""
    assert [words[:1] for words in commands()] == [["specc"]] * len(commands())
    assert {words[1] for words in commands()} >= {"compile", "generate", "test", "show", "bench", "tune"}


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory that has the folder of examples."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.model
def test_the_commands_of_the_quick_start_run(directory: Path, translations: None) -> None:
    """Each with small settings, in the order of the page."""
    for _, verb, *words in commands():
        result = specc(verb, *words, *SMALL.get(verb, []))
        assert result.status == 0, (verb, result.err)
        assert result.out, verb
    assert (directory / "demo.specc" / "manifest.json").is_file()


@pytest.mark.model
def test_the_python_of_the_quick_start_runs(
    directory: Path, translations: None, capsys: pytest.CaptureFixture[str]
) -> None:
    (python,) = blocks(QUICK_START, "python")
    names: dict[str, object] = {}
    exec(compile(python.text, "README.md", "exec"), names)
    assert names["specc"] is library and isinstance(names["model"], Model)
    answer = names["answer"]
    assert isinstance(answer, Generation)
    assert capsys.readouterr().out.startswith(f"{answer.text} {answer.stats.mean_acceptance_length}")
