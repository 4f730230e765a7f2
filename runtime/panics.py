"""One line for whatever a library in Rust raises: a panic of it is no Exception, and prints lines of its own."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import NoReturn, ParamSpec, TypeVar

from .errors import SpeccError, first_line

P = ParamSpec("P")
T = TypeVar("T")
STDERR = 2  # The number of the file descriptor of standard error.

_null: list[int] = []  # The number of the null device, if what a panic prints by itself goes there.
_lock = threading.Lock()  # A thread takes it before it changes standard error or the list below.
_copies: list[int] = []  # A descriptor of the real standard error, once for each thread that calls a library now.


def silence() -> None:
    """Keep off standard error what a panic prints by itself, from now on. A program that prints errors calls this."""
    if not _null:
        _null.append(os.open(os.devnull, os.O_WRONLY))


class LibraryErrors:
    """A context manager that turns whatever the library raises into an error of specc. A panic is a BaseException.

    Threads may be in it at once. The first one turns standard error off, and the last one turns it on again.
    """

    def __init__(self, make: Callable[[str], SpeccError]) -> None:
        """Prepare the error.

        Args:
            make: makes the error from the first line of the library's message.
        """
        self._make, self._silent = make, False

    def __enter__(self) -> None:
        if not _null:  # Turning it off takes some microseconds.
            return
        with _lock:
            _copies.append(_copies[0] if _copies else os.dup(STDERR))
            os.dup2(_null[0], STDERR)
        self._silent = True

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._silent:
            with _lock:
                own = _copies.pop()
                if not _copies:
                    os.dup2(own, STDERR)
                    os.close(own)
        if error is not None:
            _raise(error, self._make)


def call_library(make: Callable[[str], SpeccError], function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function of the library as within `LibraryErrors`, in a third of its time. Each token passes through it.

    Args:
        make: makes the error from the first line of the library's message.
        function: the function.
        args: its arguments.
        kwargs: its arguments by name.
    """
    if _null:
        with LibraryErrors(make):
            return function(*args, **kwargs)
    try:
        return function(*args, **kwargs)
    except BaseException as e:
        _raise(e, make)


def _raise(error: BaseException, make: Callable[[str], SpeccError]) -> NoReturn:
    """Raise an error of the library as an error of specc, and others as they are."""
    if isinstance(error, (KeyboardInterrupt, SystemExit, SpeccError)):
        raise error
    raise make(first_line(error)) from error
