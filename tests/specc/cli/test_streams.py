"""Standard streams that are closed or full, and arguments that are not text, in processes of their own."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from shell import refused

CLOSED = "specc: error: standard output is closed; redirect it, to /dev/null if nothing shall be kept\n"


def shell(line: str, *argv: object) -> subprocess.CompletedProcess[str]:
    """Run `specc argv…` with the redirections of a shell line."""
    words = shlex.join(map(str, argv))
    command = f"{shlex.quote(sys.executable)} -m specc {words} {line}"
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120)


@pytest.mark.process
@pytest.mark.parametrize("argv", [("--help",), ("recipes",), ("generate", "none", "-p", "a")])
def test_a_closed_standard_output_is_one_line(argv: tuple[str, ...]) -> None:
    result = shell(">&-", *argv)
    assert (result.returncode, result.stdout, result.stderr) == (2, "", CLOSED)


@pytest.mark.process
def test_with_all_streams_closed_the_status_says_it() -> None:
    result = shell("<&- >&- 2>&-", "recipes")
    assert (result.returncode, result.stdout, result.stderr) == (2, "", "")


@pytest.mark.process
@pytest.mark.parametrize("source", [("-",), ("--messages", "-")])
def test_a_closed_standard_input_is_one_line_where_it_is_the_prompt(source: tuple[str, ...]) -> None:
    result = shell("<&-", "generate", "none", *source)
    assert result.returncode == 2
    assert result.stderr == "specc: error: standard input is closed; give the prompt by --prompt or --prompt-file\n"


@pytest.mark.process
def test_closed_streams_that_are_not_needed_do_no_harm() -> None:
    result = shell("<&- 2>&-", "recipes")
    assert result.returncode == 0 and "prompt-lookup" in result.stdout


@pytest.mark.process
def test_no_file_takes_the_place_of_a_closed_stream(tmp_path: Path) -> None:
    """What a library then writes to standard error would land in it."""
    code = (
        "import os; from specc.cli import console; console.fill_closed_streams();"
        "file = open('out', 'w'); os.write(2, b'noise'); file.close(); print(os.path.getsize('out'), file.name)"
    )
    command = f"{shlex.quote(sys.executable)} -c {shlex.quote(code)} <&- 2>&-"
    result = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=tmp_path)
    assert result.stdout == "0 out\n"


@pytest.mark.process
@pytest.mark.parametrize("verb", ["--version", "recipes"])
def test_a_full_disk_is_one_line(verb: str) -> None:
    result = shell(">/dev/full", verb)
    assert result.returncode == 2
    assert result.stderr == (
        "specc: error: standard output: No space left on device; free some space, or choose another place\n"
    )


@pytest.mark.process
@pytest.mark.parametrize(
    "argv",
    [
        (b"generate", b"\xff", b"-p", b"a"),
        (b"show", b"\xff\x1b[31m"),
        pytest.param((b"compile", b"\xff", b"-o", b"\xfe"), marks=[pytest.mark.torch, pytest.mark.slow]),
    ],
)
def test_an_argument_that_is_not_utf_8_is_one_line_of_plain_text(argv: tuple[bytes, ...]) -> None:
    command = [os.fsencode(sys.executable), b"-m", b"specc", *argv]
    result = subprocess.run(command, capture_output=True, timeout=120)
    assert result.returncode == 2 and result.stdout == b""
    *_, line = result.stderr.decode("ascii").splitlines()
    assert b"Traceback" not in result.stderr
    assert line.startswith("specc: error: ") and line.isprintable() and "\\udcff" in line


def test_a_file_without_an_end_is_not_read_to_it() -> None:
    assert refused("generate", "none", "--prompt-file", "/dev/zero").startswith("/dev/zero has more than 256 MiB")
