"""Read a user's file up to a bound, since some files have no end, such as /dev/zero, and some archives nearly none."""

from __future__ import annotations

from typing import Protocol

from specc.runtime.errors import PromptError

MOST_BYTES = 256 << 20  # More than any context takes, and more than the prompts of any benchmark.


class Readable(Protocol):
    """An open file of bytes, or what unpacks one."""

    def read(self, size: int, /) -> bytes:
        """Return so many bytes at most."""


def read_bounded(opened: Readable, name: object) -> bytes:
    """Read all bytes of a file.

    Args:
        opened: the file.
        name: what messages call it.

    Raises:
        PromptError: it has more than MOST_BYTES.
    """
    data = opened.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise PromptError(f"{name} has more than {MOST_BYTES >> 20} MiB, which no context takes; shorten it")
    return data
