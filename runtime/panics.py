"""One line for whatever a library in Rust raises: a panic of it is no Exception, and prints lines of its own."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NoReturn, ParamSpec, TypeVar

from .errors import SpeccError, first_line

P = ParamSpec("P")
T = TypeVar("T")
STDERR = 2  # The number of the file descriptor of standard error.

_null: list[int] = []  # The number of the null device, if what a panic prints by itself goes there.


def silence() -> None:
    """Keep off standard error what a panic prints by itself, from now on. A program that prints errors calls this."""
    if not _null:
        _null.append(os.open(os.devnull, os.O_WRONLY))


class LibraryErrors:
    """A context manager that turns whatever the library raises into an error of specc. A panic is a BaseException."""

    def __init__(self, make: Callable[[str], SpeccError]) -> None:
        """Prepare the error.

        Args:
            make: makes the error from the first line of the library's message.
        """
        self._make, self._saved = make, -1

    def __enter__(self) -> None:
        if _null:  # It takes some microseconds.
            self._saved = os.dup(STDERR)
            os.dup2(_null[0], STDERR)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if self._saved >= 0:
            os.dup2(self._saved, STDERR)
            os.close(self._saved)
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
