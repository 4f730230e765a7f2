"""Literals that a user writes as values of parameters: on the command line, or in a recipe file. No torch."""

from __future__ import annotations

from ast import literal_eval
from collections.abc import Mapping
from typing import Any

from specc.runtime.errors import RecipeError

MOST_BITS = 63  # of a whole number; what reads manifests in C has no larger ones
SHOWN = 60  # characters of a text that a message repeats


def read_literal(name: str, text: str, remedy: str) -> Any:
    """Read a Python literal.

    Args:
        name: what the text is, for the error message.
        text: the text.
        remedy: what to write, for the error message.

    Raises:
        RecipeError: the text is not a literal, or it has a number of too many digits.
    """
    try:
        value = literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise RecipeError(f"{name}: {shorten(text)!r} is not a Python literal; {remedy}") from None
    check_digits(name, value)
    return value


def check_digits(name: str, value: Any) -> None:
    """Refuse a value that holds a whole number of too many digits. Python cannot even print one of thousands.

    Raises:
        RecipeError: it holds one.
    """
    pending = [value]
    while pending:
        part = pending.pop()
        if isinstance(part, int) and part.bit_length() > MOST_BITS:
            raise RecipeError(f"{name} has a whole number of {part.bit_length()} bits; write one of {MOST_BITS} bits")
        if isinstance(part, Mapping):
            pending += part.values()
        elif isinstance(part, (list, tuple, set, frozenset)):
            pending += part


def shorten(text: str) -> str:
    """Return a text, or its beginning if it is long."""
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"
