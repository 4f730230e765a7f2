"""The page on the command line: its commands run, in its order, on the files that it shows."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from pages import ROOT, blocks, read
from shell import refused, specc

PAGE = read(ROOT / "docs" / "command-line.md")
COMMANDS = [line for block in blocks(PAGE, "sh") for line in block.text.splitlines()]


@pytest.fixture
def directory(bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the page's files, and a tiny model's bundle as model.specc."""
    for block in blocks(PAGE, "json"):
        (tmp_path / block.title.removeprefix('title="').removesuffix('"')).write_text(block.text, encoding="utf-8")
    (tmp_path / "prompt.txt").write_text("def f(", encoding="utf-8")
    (tmp_path / "model.specc").symlink_to(bundle)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.model
def test_the_commands_of_the_page_run(directory: Path) -> None:
    assert len(COMMANDS) >= 6
    for command in COMMANDS:
        program, *words = shlex.split(command)
        result = specc(*words, *(("--max-new-tokens", 8) if words[0] == "generate" else ()))
        assert (program, result.status) == ("specc", 0), (command, result.err)
    answers = [json.loads(line) for line in (directory / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [answer["id"] for answer in answers] == ["tree", "forest"]
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    named = {name.strip(" `") for row in rows for name in row.split(",")}
    assert answers[0].keys() | {"error", "logprobs"} == named - {"eos", "stop", "length"}


@pytest.mark.model
def test_the_error_of_the_page_is_the_one_that_a_user_sees(directory: Path) -> None:
    messages = [{"role": "user", "content": "a"}, {"role": "user", "content": 5}]
    Path("chat.json").write_text(json.dumps(messages), encoding="utf-8")
    assert f"`{refused('generate', 'model.specc', '--messages', 'chat.json')}`" in PAGE


def test_the_page_has_every_exit_status_that_the_program_documents() -> None:
    from specc.cli import main

    rows = {
        line.split("|")[1].strip()
        for line in PAGE.splitlines()
        if line.startswith("| 1") or line[:4] in ("| 0 ", "| 2 ")
    }
    documented = (main.__doc__ or "").partition("Raises:")[2]
    assert rows == {"0", "1", "2", "130", "141", "143"}
    assert all(status in documented for status in rows)
