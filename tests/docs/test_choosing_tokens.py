"""The page on choosing tokens: its code and commands run, and its table has every option in the order in use."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import ROOT, blocks, read, titled
from shell import specc

import specc as package
from specc.runtime.processors import Processor
from specc.runtime.processors.options import ProcessorOptions
from specc.runtime.sampling_defaults import SAMPLING

PAGE = read(ROOT / "docs" / "choosing-tokens.md")
FROZEN = ROOT / "tests/bundles/schema-1"


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with the page's grammar and a bundle as model.specc."""
    (grammar,) = blocks(PAGE, "lark")
    (tmp_path / "call.lark").write_text(grammar.text, encoding="utf-8")
    (tmp_path / "model.specc").symlink_to(FROZEN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.thorough
def test_the_commands_of_the_page_run_and_keep_to_their_grammars(directory: Path) -> None:
    lines = [line for block in blocks(PAGE, "sh") for line in block.text.splitlines() if line.startswith("specc")]
    by_regex, penalised, by_schema, by_lark = (specc(*shlex.split(line)[1:], "-n", 24) for line in lines)
    assert by_regex.json["text"] in ("yes", "no") and len(by_regex.json["logprobs"][0]["top_logprobs"]) == 2
    assert penalised.status == 0 and "self" not in penalised.out
    assert json.loads(by_schema.out) in ("red", "green")
    assert re.fullmatch(r"[a-z]{1,6}\([a-z]{1,6}\)\n", by_lark.out)


def test_the_request_of_the_page_gets_whole_json(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {"specc": package}
    exec(compile(titled(PAGE, "request"), "choosing-tokens.md", "exec"), names)
    answer = names["answer"]
    assert answer.finish_reason == "eos" and json.loads(answer.text).keys() == {"name", "age"}
    assert capsys.readouterr().out.startswith(f"{answer.text} eos ")


def test_the_processor_of_the_page_allows_what_it_says() -> None:
    names = {"Processor": Processor, "Sequence": Sequence, "np": np, "__name__": "page"}
    exec(compile("from __future__ import annotations\n" + titled(PAGE, "processor"), "page", "exec"), names)
    row = np.zeros(6, np.float32)
    names["OnlyDigits"]([1, 4])([], row)  # type: ignore[operator]
    assert row.tolist() == [-np.inf, 0, -np.inf, -np.inf, 0, -np.inf]


def test_the_table_has_every_option_once() -> None:
    rows = [line.split("|")[1] for line in PAGE.splitlines() if line.startswith("| `")]
    named = [name for row in rows for name in re.findall("`([a-z_]+)`", row)]
    assert sorted(named) == sorted({*ProcessorOptions.__dataclass_fields__, *SAMPLING} - {"logprobs"})
