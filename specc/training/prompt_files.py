"""The user's files of prompts to train on. No torch, so that a wrong file is found before torch loads."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from specc.bounded_read import read_text, reason_of
from specc.messages import Conversation
from specc.prompts import read_lines
from specc.runtime.errors import PromptError

LINES = (".jsonl", ".json", ".gz")  # files with one prompt on each line; others are text that the model continues


class Line(NamedTuple):
    """A line of a file of prompts.

    Attributes:
        number: of the line in the file, from 1.
        source: text or a conversation, which the model answers.
        later: the user's turns after the first.
    """

    number: int
    source: str | Conversation
    later: tuple[str, ...]


def read_file(file: Path) -> list[Line] | str:
    """Read a file: its lines, or its whole text, which the model continues.

    Raises:
        PromptError: it is no regular file, cannot be read, or a line has another form.
    """
    check_regular(file)
    if file.suffix.lower() in LINES:
        lines = []
        for line in read_lines(file):
            if isinstance(line.source, PromptError):
                raise line.source
            if isinstance(line.later, PromptError):
                raise line.later
            lines.append(Line(line.number, line.source, line.later))
        return lines
    try:
        with file.open("rb") as opened:
            return read_text(opened, file)
    except (OSError, UnicodeDecodeError) as e:
        raise PromptError(
            f"cannot read text from {file}: {reason_of(e)}; give UTF-8 text or JSON lines (.jsonl)"
        ) from e


def check_regular(file: Path) -> None:
    """Refuse a pipe or a device, which may have no end. Raises PromptError."""
    if file.exists() and not file.is_file() and not file.is_dir():
        raise PromptError(f"{file} is no regular file; write its text to a file, and give that")
