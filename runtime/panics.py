"""One line for whatever a library in Rust raises: a panic of it is no Exception, and prints lines of its own."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator

from .errors import SpeccError, first_line

STDERR = 2  # The number of the file descriptor of standard error.

_null: list[int] = []  # The number of the null device, if what a panic prints by itself goes there.


def silence() -> None:
    """Keep off standard error what a panic prints by itself, from now on. A program that prints errors calls this."""
    if not _null:
        _null.append(os.open(os.devnull, os.O_WRONLY))


@contextlib.contextmanager
def library_errors(make: Callable[[str], SpeccError]) -> Iterator[None]:
    """Turn whatever the library raises into an error of specc. A panic of it is a BaseException.

    Args:
        make: makes the error from the first line of the library's message.
    """
    try:
        with _without_lines(_null[0]) if _null else contextlib.nullcontext():
            yield
    except (KeyboardInterrupt, SystemExit, SpeccError):
        raise
    except BaseException as e:
        raise make(first_line(e)) from e


@contextlib.contextmanager
def _without_lines(null: int) -> Iterator[None]:
    """Send to the null device what the block writes to standard error. It takes some microseconds.

    Args:
        null: the number of the null device, which is open.
    """
    saved = os.dup(STDERR)
    try:
        os.dup2(null, STDERR)
        yield
    finally:
        os.dup2(saved, STDERR)
        os.close(saved)
