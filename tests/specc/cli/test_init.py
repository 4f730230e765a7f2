"""The command line as a whole: help, wrong usage, how errors end, and what it loads."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from shell import command, refused, specc

from specc import __version__
from specc.cli import OTHER_WORDS, _commands

VERBS = (
    *("compile", "generate", "test", "show", "recipes", "doctor", "bench", "tune", "swap"),
    *("golden add", "golden diff", "cache list", "cache clean"),
)


def test_the_version() -> None:
    assert specc("--version").out == f"specc {__version__}\n"


@pytest.mark.parametrize("verb", VERBS)
def test_help_shows_examples_in_80_columns(verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    out = specc(*verb.split(), "--help").out
    assert f"  Examples:\n    specc {verb}" in out
    assert max(map(len, out.splitlines())) <= 80
    assert verb.split()[0] in specc("--help").out


@pytest.mark.parametrize(
    "argv", [("frobnicate",), ("generate",), ("generate", "b", "--tempratur", "1"), ("compile", "m")]
)
def test_a_wrong_usage_is_status_2(argv: tuple[str, ...]) -> None:
    result = specc(*argv)
    assert result.status == 2
    assert result.out == ""
    assert "Traceback" not in result.err


@pytest.mark.process
def test_the_command_line_loads_nothing_heavy() -> None:
    heavy = "torch transformers onnx onnxruntime onnxscript tokenizers safetensors numpy jinja2 rich"
    code = f"import sys, specc.cli; print([m for m in '{heavy}'.split() if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


@pytest.mark.parametrize("verb", ["generate", "test", "show", "bench"])
def test_a_missing_bundle_is_refused(verb: str, tmp_path: Path) -> None:
    prompt = ["--prompt", "a"] if verb == "generate" else []
    assert refused(verb, tmp_path / "none", *prompt).startswith(f"no bundle at {tmp_path / 'none'}; make one with")
    assert f"{tmp_path} has no manifest.json" in refused(verb, tmp_path, *prompt)


@pytest.mark.process
@pytest.mark.parametrize(
    ("words", "expected"), [("specc ge", ["generate"]), ("specc generate --max", ["--max-new-tokens"])]
)
def test_the_shell_completes_verbs_and_options(words: str, expected: list[str]) -> None:
    position = str(len(words.split()) - 1)
    variables = {"_SPECC_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": position}
    result = subprocess.run(command(), env=os.environ | variables, capture_output=True, text=True)
    assert (result.returncode, result.stdout.split()) == (0, expected), result.stderr


@pytest.mark.process
def test_completion_is_installed_for_the_shell_that_runs_specc(tmp_path: Path) -> None:
    variables = {"HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)}
    line = f"{shlex.join(command())} --install-completion; true"
    result = subprocess.run(["bash", "-c", line], env=os.environ | variables, capture_output=True, text=True)
    (script,) = (tmp_path / ".bash_completions").iterdir()
    assert "_SPECC_COMPLETE=complete_bash" in script.read_text(encoding="utf-8"), result.stderr
    assert str(script) in (tmp_path / ".bashrc").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("verb", "panels"),
    [
        ("compile", ["Arguments", "Output", "Drafts", "Model", "Golden outputs", "Engines", "Options"]),
        ("bench", ["Arguments", "Recipes", "Prompts", "Peers", "Output", "Options"]),
    ],
)
def test_long_help_texts_have_panels(verb: str, panels: list[str]) -> None:
    lines = specc(verb, "--help").out.splitlines()
    assert [line[:-1] for line in lines if line.endswith(":") and line[0] != " "] == panels


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("nosuch",), "no such command 'nosuch'; see: specc --help"),
        (("replay", "b"), "no such command 'replay'. Did you mean 'test'?; see: specc --help"),
        (("complie", "m"), "no such command 'complie'. Did you mean 'compile'?; see: specc --help"),
        (("cache", "lst"), "no such command 'lst'. Did you mean 'list'?; see: specc cache --help"),
        (("generate",), "missing argument 'BUNDLE'; see: specc generate --help"),
        (("generate", "b", "-n", "x"), "'-n' / '--max-new-tokens'"),
        (("compile", "model"), "missing option '-o' / '--output'; see: specc compile --help"),
        (("bench", "b", "--nosuch"), "no such option"),
        (("cache", "nosuch"), "no such command 'nosuch'; see: specc cache --help"),
        (("generate", "b", "-p", "a", "--\x1b[2J"), "\\x1b[2J"),
        (("\x1b[31mred",), "\\x1b[31mred"),
        (("generate", "b", "-p", "a", "--chat", "--raw"), "--chat and --raw exclude each other; give one of them"),
        (("generate", "b", "-p", "a", "--raw", "--chat"), "--chat and --raw exclude each other; give one of them"),
    ],
)
def test_a_wrong_usage_is_one_line(argv: tuple[str, ...], message: str) -> None:
    line = refused(*argv)
    assert message in line and line.isprintable()


def test_each_other_word_for_a_verb_names_a_verb_and_is_none() -> None:
    verbs = set(_commands().commands)
    assert set(OTHER_WORDS.values()) <= verbs and not set(OTHER_WORDS) & verbs


@pytest.mark.parametrize("argv", [(), ("cache",)])
def test_no_arguments_print_the_help(argv: tuple[str, ...]) -> None:
    result = specc(*argv)
    assert result.status == 2 and "Usage: specc" in result.out + result.err and "error" not in result.err
