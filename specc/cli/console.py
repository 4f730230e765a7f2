"""Where the command line writes: tables and JSON to stdout; progress, summaries and errors to stderr."""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console

from specc.runtime.errors import SpeccWarning

Stage = Callable[[str, int, int], None]  # title, done, total


def out() -> Console:
    """Standard output; what it prints is text, not markup."""
    return Console(highlight=False, markup=False)


def emit(data: Any) -> None:
    """The one JSON value of `--json`."""
    sys.stdout.write(json.dumps(data) + "\n")


def note(line: str) -> None:
    """A line beside the output."""
    sys.stdout.flush()
    print(line, file=sys.stderr)


def fail(message: str) -> None:
    """One line, whatever the message holds."""
    note("specc: error: " + " ".join(message.split()))


def one_line_warnings() -> None:
    """Ours in one line, without the place in the code that they come from; others as they are."""
    usual = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, SpeccWarning):
            note("specc: warning: " + " ".join(str(message).split()))
        else:
            usual(message, category, *place, **more)

    warnings.showwarning = show


def drop_stdout() -> None:
    """Nobody reads it any more: what is still buffered goes nowhere, without a complaint at exit."""
    try:
        standard_output = sys.stdout.fileno()
        os.dup2(os.open(os.devnull, os.O_WRONLY), standard_output)
    except OSError:  # standard output is no file
        return


_ending: list[BaseException] = []  # what a signal raised


def heed_signals() -> None:
    """SIGTERM and SIGINT raise, so that what is half-written is removed; and raise again at the next stage, where a
    library's bare `except` has swallowed that."""

    def end(number: int, frame: Any) -> None:
        _ending.append(KeyboardInterrupt() if number == signal.SIGINT else SystemExit(143))
        raise _ending[-1]

    _ending.clear()
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as a background job has it
            signal.signal(number, end)


def _heeded(stage: Stage) -> Stage:
    def heeding(title: str, done: int, total: int) -> None:
        if _ending:
            raise _ending[-1]
        stage(title, done, total)

    return heeding


class _Lines:
    """A line for each new title."""

    title = ""

    def __call__(self, title: str, done: int, total: int) -> None:
        if title != self.title:
            note(title)
        self.title = title


@contextmanager
def stages() -> Iterator[Stage]:
    """What to call at each step of a long work: a bar on a terminal, a line for each new title elsewhere."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _heeded(_Lines())
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = BarColumn(24), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}")
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("")
        yield _heeded(lambda title, done, total: progress.update(task, description=title, completed=done, total=total))


def size(count: int) -> str:
    """Bytes for people: 39.8 MB."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.{unit != 'B':d}f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"
