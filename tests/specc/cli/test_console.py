"""The streams of the command line, its signals, and the parts of its tables."""

from __future__ import annotations

import contextlib
import io
import os
import pty
import re
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator

import pytest

from specc.cli import console
from specc.runtime.errors import SpeccWarning


@pytest.fixture
def handlers() -> Iterator[None]:
    numbers = signal.SIGINT, signal.SIGTERM
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize(("number", "error"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_that_a_library_swallowed_ends_the_work_at_its_next_stage(
    number: signal.Signals, error: type[BaseException]
) -> None:
    signal.signal(number, signal.default_int_handler)
    with console.end_on_signals():
        with contextlib.suppress(BaseException):
            signal.raise_signal(number)
        with console.stages() as stage, pytest.raises(error):
            stage("build", 0, 1)


@pytest.mark.usefixtures("handlers")
def test_a_signal_that_the_shell_ignores_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with console.end_on_signals():
        signal.raise_signal(signal.SIGINT)
        with console.stages() as stage:
            stage("build", 0, 1)


@pytest.mark.usefixtures("handlers")
def test_the_handlers_of_signals_are_put_back_and_an_old_signal_is_forgotten() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with console.end_on_signals(), contextlib.suppress(SystemExit):
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before
    with console.stages() as stage:
        stage("build", 0, 1)


def test_each_new_title_is_a_line_on_standard_error(capsys: pytest.CaptureFixture[str]) -> None:
    with console.stages() as stage:
        for title, done in (("load", 0), ("build", 1), ("build", 2), ("measure", 3)):
            stage(title, done, 4)
    assert capsys.readouterr() == ("", "load\nbuild\nmeasure\n")


def test_what_a_stage_is_doing_is_no_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    with console.stages() as stage:
        for step in range(3):
            stage(f"build{console.DETAIL}{step} of 3", step, 3)
    assert capsys.readouterr().err == "build\n"


def test_a_long_stage_says_now_and_then_how_far_it_is_in_whole_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    now = 1000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    figures = "loss 1.50, right at each depth 61%, 55%, 41%, 30%, 22%, 4000 tokens/s, held-out 2.11 tokens a step"
    with console.stages() as stage:
        for done in range(200, 300):  # It was interrupted before, at a fifth.
            stage(f"train{console.DETAIL}{figures}", done, 1000)
            now += 1.0
        stage("measure", 0, 0)
        now += 99
        stage("measure", 0, 0)
    first, *more, last, after = capsys.readouterr().err.splitlines()
    assert (first, last, after) == ("train", "measure", "measure")
    assert more == [
        f"train{console.DETAIL}{figures}, 23% done",
        f"train{console.DETAIL}{figures}, 26% done, 12 min left",
        f"train{console.DETAIL}{figures}, 29% done, 12 min left",
    ]


@pytest.mark.parametrize(
    ("seconds", "done", "words"),
    [
        (10.0, 0, ""),
        (10.0, 49, ""),
        (10.0, 500, "10 s left"),
        (100.0, 500, "1 min 40 s left"),
        (1000.0, 500, "17 min left"),
        (10.0, 1000, "1 s left"),
    ],
)
def test_the_time_left_is_said_in_words(seconds: float, done: int, words: str) -> None:
    assert console.time_left(seconds, done, 1000) == words


def test_the_time_left_counts_down_between_two_reports() -> None:
    assert console.time_left(30.0, 500, 1000, since=10.0) == "20 s left"
    assert console.time_left(30.0, 500, 1000, since=45.0) == "1 s left"


SHOWS_A_BAR = """
import os, subprocess, sys, time, warnings
from specc.cli import console
with console.stages() as stage:
    stage("build", 1, 4)
    warnings.warn("from a library", stacklevel=1)
    os.write(2, b"from native code\\n")
    subprocess.run(["sh", "-c", "echo from a child >&2"])
    stage("build · decode", 2, 4)
    time.sleep(0.5)
os.write(2, b"after the bar\\n")
"""


@pytest.mark.process
def test_lines_of_libraries_stand_above_the_bar_on_a_terminal() -> None:
    """A line that tears the bar would begin after it, in the middle of a line."""
    reading, writing = pty.openpty()
    child = subprocess.Popen([sys.executable, "-c", SHOWS_A_BAR], stderr=writing, env={**os.environ, "TERM": "xterm"})
    os.close(writing)
    data = b""
    with contextlib.suppress(OSError):  # Linux reports the end of a terminal as an error.
        while piece := os.read(reading, 4096):
            data += piece
    assert child.wait(timeout=60) == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", data.decode())
    lines = [line.rsplit("\r", 1)[-1] for line in text.split("\r\n")]
    for words in ("from a library", "from native code", "from a child", "after the bar"):
        assert any(words in line and "build" not in line and "━" not in line for line in lines), (words, lines)
    assert "50%" in text and "build · decode" in text


def test_an_error_of_several_lines_is_printed_as_one(capsys: pytest.CaptureFixture[str]) -> None:
    console.fail("it broke:\n  here\n")
    assert capsys.readouterr().err == "specc: error: it broke: here\n"


def test_a_warning_of_specc_is_one_line_and_others_are_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    others: list[str] = []
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, *place: others.append(str(message))
        console.one_line_warnings()
        warnings.warn("slow\nhere", SpeccWarning, stacklevel=1)
        warnings.warn("old", UserWarning, stacklevel=1)
    assert capsys.readouterr().err == "specc: warning: slow here\n"
    assert others == ["old"]


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (39_800_000, "39.8 MB"), (4e9, "4.0 GB"), (5e15, "5000.0 TB")],
)
def test_sizes_have_a_unit(count: float, text: str) -> None:
    assert console.size(int(count)) == text


def test_markup_in_a_table_is_printed_as_text() -> None:
    table = console.table("name", ("count", "right"))
    table.add_row("[bold]x[/bold]", "1")
    out = console.out()
    with out.capture() as captured:
        out.print(table)
    assert "[bold]x[/bold]" in captured.get()


def test_control_characters_of_a_foreign_file_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    console.note("a\x1b[31m\x07 ü")
    assert capsys.readouterr().err == "a\\x1b[31m\\x07 ü\n"


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("patience", "expected"), [(0.0, True), (60.0, False)])
def test_a_line_appears_on_a_terminal_while_a_work_takes_long(
    patience: float, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    with console.waiting(lambda: "reading the prompt", patience):
        pass
    assert ("reading the prompt" in terminal.getvalue()) == expected


def test_no_line_appears_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    with console.waiting(lambda: "reading the prompt", 0.0):
        pass
    assert capsys.readouterr() == ("", "")
