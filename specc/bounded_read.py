"""Read a user's file: up to a bound, since some have no end, such as /dev/zero, and as text in UTF-8."""

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


def read_text(opened: Readable, name: object) -> str:
    """Read all text of a file that a user wrote.

    Args:
        opened: the file.
        name: what messages call it.

    Raises:
        PromptError: it has more than MOST_BYTES.
        UnicodeDecodeError: it is not UTF-8.
    """
    return decode_text(read_bounded(opened, name))


def decode_text(data: bytes) -> str:
    """Return UTF-8 as text, without the byte order mark that some editors write at the start, most of them on Windows.

    Raises:
        UnicodeDecodeError: it is not UTF-8.
    """
    return data.decode("utf-8-sig")


def reason_of(error: Exception) -> str:
    """Say why a file cannot be read, without the number that an operating system gives to the reason."""
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)
