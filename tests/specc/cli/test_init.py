"""The command line as a whole: help, wrong usage, how errors end, and what it loads."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from shell import refused, specc

from specc import __version__

VERBS = ("compile", "generate", "test", "show", "recipes", "doctor", "bench", "tune")


def test_the_version() -> None:
    assert specc("--version").out == f"specc {__version__}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_examples_in_80_columns(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out = specc(verb, "--help").out
    assert f"  Examples:\n    specc {verb}" in out
    assert max(map(len, out.splitlines())) <= 80
    assert verb in specc("--help").out


@pytest.mark.parametrize(
    "argv", [("frobnicate",), ("generate",), ("generate", "b", "--tempratur", "1"), ("compile", "m")]
)
def test_a_wrong_usage_is_status_2(argv: tuple[str, ...]) -> None:
    ran = specc(*argv)
    assert ran.status == 2
    assert ran.out == ""
    assert "Traceback" not in ran.err


def test_the_command_line_loads_nothing_heavy() -> None:
    heavy = "torch transformers onnx onnxruntime onnxscript tokenizers safetensors numpy jinja2 rich"
    code = f"import sys, specc.cli; print([m for m in '{heavy}'.split() if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize("verb", ["generate", "test", "show", "bench"])
def test_a_missing_bundle_is_refused(verb: str, tmp_path: Path) -> None:
    prompt = ["--prompt", "a"] if verb == "generate" else []
    assert refused(verb, tmp_path / "none", *prompt).startswith(f"no bundle at {tmp_path / 'none'}; make one with")
    assert f"{tmp_path} has no manifest.json" in refused(verb, tmp_path, *prompt)
