"""The code of the page on the architecture runs."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from doubles.toy_bundle import install, write_bundle
from pages import ROOT, read, titled

import specc


def test_the_requests_of_the_page_get_their_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    install(monkeypatch)
    write_bundle(tmp_path / "small.specc")
    monkeypatch.chdir(tmp_path)
    expected = specc.load("small.specc").generate("import os\n", 64, temperature=0).text
    code = titled(read(ROOT / "docs" / "architecture.md"), "requests")
    exec(compile(code, "architecture.md", "exec"), {"specc": specc})
    printed = capsys.readouterr().out
    assert printed.startswith(expected)
    ending = r"\['(eos|length)', '(eos|length|cancelled)', '(eos|length)'\]\n"
    assert re.fullmatch(ending, printed.removeprefix(expected))
