"""A terminal that shows a bar: what libraries write to standard error appears above it, line by line."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from specc.runtime.panics import STDERR


class Terminal:
    """A terminal whose standard error goes through a pipe, so that foreign lines do not tear a bar.

    Attributes:
        console: writes to the terminal itself.
        write: a function that prints a foreign line above the bar.
    """

    def __init__(self) -> None:
        from rich.console import Console

        sys.stderr.flush()
        self.saved = os.dup(STDERR)
        self.file = os.fdopen(os.dup(self.saved), "w", encoding="utf-8", errors="replace")
        self.console = Console(file=self.file, force_terminal=True)
        self.write: Callable[[str], None] = lambda line: self.console.print(line, markup=False, highlight=False)
        reading, writing = os.pipe()
        os.dup2(writing, STDERR)
        os.close(writing)
        self.reader = threading.Thread(target=self._forward, args=(reading,), daemon=True)
        self.reader.start()

    def _forward(self, reading: int) -> None:
        with os.fdopen(reading, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                self.write(line.rstrip("\n"))

    def drain(self) -> None:
        """Put standard error back, and print what is still in the pipe. A second call does nothing."""
        if self.saved < 0:
            return
        sys.stderr.flush()
        os.dup2(self.saved, STDERR)
        os.close(self.saved)
        self.saved = -1
        self.reader.join(timeout=1.0)  # A child that outlives the work keeps the pipe open.


@contextmanager
def lines_above() -> Iterator[Terminal]:
    """Send standard error through a pipe while a bar is shown."""
    terminal = Terminal()
    try:
        yield terminal
    finally:
        terminal.drain()
        terminal.file.close()
