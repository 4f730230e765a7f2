"""Write tables and JSON to standard output; write progress, summaries and errors to standard error.

rich is imported where it is used, so that `specc --help` starts without it.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specc.runtime.errors import SpeccWarning, printable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.table import Table
    from rich.text import Text

LOG_SECONDS = 30.0  # between two lines of one stage, where standard error is no terminal
DETAIL = " · "  # as in specc/compiler/stages.py, which needs torch
Stage = Callable[[str, int, int], None]  # The title of a stage, how many are done, and how many there are.
STYLES: dict[str, dict[str, Any]] = {
    "right": {"justify": "right", "no_wrap": True},
    "dim": {"style": "dim", "no_wrap": True},
    "whole": {"no_wrap": True},
    "fold": {"overflow": "fold"},
}


def out() -> Console:
    """Return standard output as a console that prints text as it is, without markup."""
    from rich.console import Console

    return Console(highlight=False, markup=False)


def show(parts: RenderableType) -> None:
    """Print tables and texts to standard output. A table that is wider than the terminal is not cut."""
    out().print(parts, crop=False)


def emit(data: Any) -> None:
    """Write the one JSON value of `--json`."""
    sys.stdout.write(json.dumps(data) + "\n")


def note(line: str) -> None:
    """Write a line to standard error, after everything that was printed before it.

    Control characters, which may come from a foreign file, are written as escapes.
    """
    sys.stdout.flush()
    print(printable(line), file=sys.stderr)


def fail(message: str) -> None:
    """Write an error as one line, however many lines the message has."""
    note("specc: error: " + " ".join(message.split()))


@contextmanager
def naming(file: Path) -> Iterator[None]:
    """Name a file in the errors of the operating system that have no name, as those of a full disk."""
    try:
        yield
    except OSError as e:
        if e.filename is None:
            e.filename = str(file)
        raise


def one_line_warnings() -> None:
    """Print specc's own warnings as one line without their place in the code. Leave other warnings as they are."""
    show_other = warnings.showwarning

    def show(message: Warning | str, category: type[Warning], *place: Any, **settings: Any) -> None:
        if issubclass(category, SpeccWarning):
            note("specc: warning: " + " ".join(str(message).split()))
        else:
            show_other(message, category, *place, **settings)

    warnings.showwarning = show


def fill_closed_streams() -> bool:
    """Open the null device in place of the standard streams that are closed.

    Otherwise the next file that is opened would take the number of such a stream, and a library that writes to the
    stream would write into that file. `sys.stdin` stays None, so that who reads it can say that it is closed.

    Returns:
        Whether standard output was open.
    """
    is_open = sys.stdout is not None
    # The null device takes the lowest free number each time, which is the closed stream's if they are tried in order.
    if sys.stdin is None:
        _open_null_device()
    if sys.stdout is None:
        sys.stdout = os.fdopen(_open_null_device(), "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(_open_null_device(), "w")
    return is_open


def _open_null_device() -> int:
    number = os.open(os.devnull, os.O_RDWR)
    os.set_inheritable(number, True)
    return number


def drop_stdout() -> None:
    """Discard what is still to be written to standard output.

    Its reader has gone away or its disk is full. Otherwise Python would complain about that at exit.
    """
    try:
        standard_output = sys.stdout.fileno()
        os.dup2(os.open(os.devnull, os.O_WRONLY), standard_output)
    except OSError:
        return  # Standard output is not a file.


_pending: list[BaseException] = []  # The exceptions that signals raised.


@contextmanager
def end_on_signals() -> Iterator[None]:
    """Turn SIGTERM and SIGINT into exceptions, so that half-written files are removed.

    A library with a bare `except` may swallow such an exception. So it is raised again at the next stage of the work.
    A signal that the shell ignores stays ignored, as for a background job.
    """

    def end(number: int, frame: Any) -> None:
        _pending.append(KeyboardInterrupt() if number == signal.SIGINT else SystemExit(143))
        raise _pending[-1]

    numbers = [n for n in (signal.SIGINT, signal.SIGTERM) if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, end) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        _pending.clear()


def _raising_pending(stage: Stage) -> Stage:
    """Wrap a stage so that it first raises the exception of a signal that a library swallowed."""

    def raise_or_call(title: str, done: int, total: int) -> None:
        if _pending:
            raise _pending[-1]
        stage(title, done, total)

    return raise_or_call


class _Lines:
    """A stage that prints a line for each new title. In a long stage, a line says now and then how far it is.

    The first line of a stage leaves out what it is doing, after DETAIL. The others have it, for logs are not cut.
    """

    def __init__(self) -> None:
        self.title, self.first, self.start, self.printed = "", 0, 0.0, 0.0

    def __call__(self, title: str, done: int, total: int) -> None:
        stage, now = title.partition(DETAIL)[0], time.monotonic()
        if stage != self.title:
            note(stage)
            self.title, self.first, self.start, self.printed = stage, done, now, now
        elif now - self.printed >= LOG_SECONDS:
            part = f"{done / total:.0%} done" if total else ""
            left = time_left(now - self.start, done - self.first, total - self.first)
            note(", ".join(filter(None, (title, part, left))))
            self.printed = now


class _Line:
    """A line of text that is made anew each time that it is drawn; nothing before `start`, a time in seconds."""

    def __init__(self, line: Callable[[], str], start: float) -> None:
        self.line, self.start = line, start

    def __rich__(self) -> Text:
        return text(self.line() if time.monotonic() >= self.start else "", "dim")


@contextmanager
def waiting(line: Callable[[], str], patience: float = 0.5) -> Iterator[None]:
    """Show a line on standard error while a work takes long, if standard error is a terminal.

    Args:
        line: makes the text. Another thread calls it several times a second.
        patience: seconds of the work before the line appears.
    """
    from rich.console import Console
    from rich.live import Live

    console = Console(stderr=True)
    if not console.is_terminal:
        yield
        return
    with Live(_Line(line, time.monotonic() + patience), console=console, transient=True, refresh_per_second=8):
        yield


@contextmanager
def loading(library: str) -> Iterator[None]:
    """Say on standard error that a library is imported, which takes some seconds, before it is."""
    title = f"load {library}"
    if not sys.stderr.isatty():
        note(title)
    with waiting(lambda: title, patience=0.0):
        yield


def time_left(seconds: float, done: int, total: int, since: float = 0.0) -> str:
    """Say in words how long the rest takes, if it goes on as it went.

    Args:
        seconds: the time that the parts took which are done.
        done: the parts that are done.
        total: the parts in all.
        since: seconds that have passed since then.

    Returns:
        An empty string before a twentieth is done, since a guess would be worth nothing.
    """
    if done <= 0 or done * 20 < total:
        return ""
    left = seconds * (total - done) / done - since
    if left < 60:
        return f"{max(1, round(left))} s left"
    return f"{left / 60:.0f} min left" if left >= 600 else f"{int(left // 60)} min {int(left % 60)} s left"


@contextmanager
def stages() -> Iterator[Stage]:
    """Show the progress of a long work on standard error: a bar on a terminal, a line for each stage elsewhere.

    While the bar is shown, what libraries write to standard error appears above it, line by line.

    Yields:
        A function to call at each step with a title, how many steps are done, and how many there are.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _raising_pending(_Lines())
        return
    from rich.progress import (
        BarColumn,
        Progress,
        ProgressColumn,
        Task,
        TaskProgressColumn,
        TextColumn,
        TimeElapsedColumn,
    )
    from rich.text import Text

    from specc.cli.terminal import lines_above

    class TimeLeftColumn(ProgressColumn):
        """A column that counts down between two reports."""

        def render(self, task: Task) -> Text:
            reported = task.fields["reported"]
            since = (task.elapsed or 0.0) - reported
            return Text(time_left(reported, int(task.completed), int(task.total or 0), since))

    with lines_above() as terminal:
        columns = (
            BarColumn(24),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TimeLeftColumn(),
            TextColumn("{task.description}", markup=False),
        )
        with Progress(*columns, console=terminal.console, transient=True, redirect_stderr=False) as progress:
            terminal.write = lambda line: progress.console.print(line, markup=False, highlight=False)
            task = progress.add_task("", reported=0.0)
            start = time.monotonic()

            def update(title: str, done: int, total: int) -> None:
                reported = time.monotonic() - start
                progress.update(task, description=title, completed=done, total=total, reported=reported)

            yield _raising_pending(update)
            terminal.drain()


def table(*columns: str | tuple[str, str], header: bool = True, title: str | None = None) -> Table:
    """Make an empty table.

    Args:
        columns: each column's title, or its title and one of STYLES. The first column never wraps.
        header: whether the titles are printed.
        title: what is printed above the table.
    """
    from rich.box import SIMPLE_HEAD

    from specc.cli.whole_table import WholeTable

    box, padding = (SIMPLE_HEAD, (0, 1, 0, 0)) if header else (None, (0, 2, 0, 0))
    empty = WholeTable(box=box, padding=padding, show_header=header, show_edge=False, pad_edge=False, title=title)
    for i, column in enumerate(columns):
        name, style = (column, "fold" if i else "whole") if isinstance(column, str) else column
        empty.add_column(name, **STYLES[style])
    return empty


def facts() -> Table:
    """Make an empty table of two columns without titles: what a fact is about, and the fact."""
    return table(("", "dim"), "", header=False)


def stack(*parts: RenderableType | str) -> RenderableType:
    """Put parts below each other."""
    from rich.console import Group

    return Group(*parts)


def text(content: str, style: str = "") -> Text:
    """Make a text that is printed as it is, in a style of rich's."""
    from rich.text import Text

    return Text(content, style)


def join(parts: list[Text], separator: str) -> Text:
    """Join texts, each in its own style."""
    return text(separator).join(parts)


def yes_or_no(value: bool) -> str:
    """Return the word for a truth value."""
    return "yes" if value else "no"


def size(count: int) -> str:
    """Write a number of bytes with a unit, such as 39.8 MB."""
    if count < 1000:
        return f"{count} B"
    amount = float(count)
    for unit in ("kB", "MB", "GB", "TB"):
        amount /= 1000
        if amount < 1000 or unit == "TB":
            break
    return f"{amount:.1f} {unit}"
