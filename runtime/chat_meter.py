"""A meter of the time and the memory that a chat template takes."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from jinja2.exceptions import TemplateError

ITEM = 16  # What an item of a list counts, in characters.


class TooMuchError(TemplateError):
    """A template that goes over a limit."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """The limits on time and size of one rendering of a chat template.

    Attributes:
        seconds: processor time, the parsing included.
        characters: of the template, of any one value, and of the output.
        total: characters of all values together.
    """

    seconds: float = 2.0
    characters: int = 10_000_000
    total: int = 200_000_000


class Meter:
    """The time and the characters that one rendering took so far."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.deadline = time.thread_time() + limits.seconds
        self.total = 0

    def tick(self) -> None:
        """Look at the clock.

        Raises:
            TooMuchError: the time is over.
        """
        if time.thread_time() > self.deadline:
            raise TooMuchError(f"it ran for more than {self.limits.seconds:g} s")

    def check(self, characters: int) -> None:
        """Refuse a value that would have so many characters.

        Raises:
            TooMuchError: one value may not have so many.
        """
        if characters > self.limits.characters:
            raise TooMuchError(f"a value has more than {self.limits.characters} characters")

    def charge(self, value: Any) -> None:
        """Count a value that was made.

        Raises:
            TooMuchError: the value is too large, or all values together are.
        """
        self.tick()
        self.total += self.size(value)
        if self.total > self.limits.total:
            raise TooMuchError(f"its values have more than {self.limits.total} characters")

    def size(self, value: Any) -> int:
        """Return how many characters a value has, with all that it contains.

        Raises:
            TooMuchError: it has too many. A list that contains one list many times counts it each time.
        """
        if isinstance(value, (str, bytes)):
            self.check(len(value))
            return len(value)
        size, stack = 0, [value]
        while stack:
            item = stack.pop()
            size += ITEM
            if isinstance(item, (str, bytes)):
                size += len(item)
            elif isinstance(item, Mapping):
                stack.extend(item.keys())
                stack.extend(item.values())
            elif isinstance(item, (list, tuple)):
                stack.extend(item)
            self.check(size)
        return size


METER: ContextVar[Meter] = ContextVar("meter")


@contextmanager
def metered(limits: Limits) -> Iterator[None]:
    """Measure the templates that this block compiles and renders, all together."""
    token = METER.set(Meter(limits))
    try:
        yield
    finally:
        METER.reset(token)
