"""The file of answers that `specc generate --prompts` writes: one JSON line for each prompt, and resumable."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from specc.prompts import PromptLine
from specc.runtime.errors import PromptError

START = '{"index": '  # Every line begins so. What begins otherwise is no part of such a file, and is not cut off.
OTHER = "choose another --output"


class Answers:
    """A file of answers, open and locked.

    Attributes:
        done: the answers that the file has, by the key of their prompt.
        repaired: whether a torn last line was cut off.
    """

    def __init__(self, file: IO[bytes], name: Path, lines: Sequence[PromptLine]) -> None:
        """Read what the file has.

        Raises:
            PromptError: it holds something else than answers to these prompts.
        """
        self._file = file
        self.done: dict[str | int, dict[str, Any]] = {}
        file.seek(0)
        whole, _, torn = file.read().rpartition(b"\n")
        self.repaired = bool(torn)
        if torn and not _is_torn_answer(torn):
            raise PromptError(f"{name} does not end with an answer of specc generate; {OTHER}")
        keys = {key(line.index, line.id) for line in lines}
        for number, text in enumerate(whole.split(b"\n") if whole else (), 1):
            answer = _parse(text, f"{name}, line {number}")
            if key(answer["index"], answer["id"]) not in keys:
                raise PromptError(f"{name}, line {number} answers a prompt that --prompts does not have; {OTHER}")
            self.done[key(answer["index"], answer["id"])] = answer
        if torn:
            file.truncate(len(whole) + 1 if whole else 0)

    def write(self, answer: dict[str, Any]) -> None:
        """Append an answer, so that it is in the file even if this process is killed."""
        self._file.seek(0, os.SEEK_END)
        self._file.write(json.dumps(answer, ensure_ascii=False).encode() + b"\n")
        self._file.flush()
        self.done[key(answer["index"], answer["id"])] = answer


@contextmanager
def open_answers(name: Path, lines: Sequence[PromptLine]) -> Iterator[Answers]:
    """Open a file of answers, or make it.

    Args:
        name: the file.
        lines: the prompts that it answers.

    Raises:
        PromptError: it is no regular file, another process writes it, or it holds something else.
    """
    if name.exists() and not name.is_file():
        raise PromptError(f"{name} is not a regular file; {OTHER}")
    with name.open("a+b") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PromptError(f"another process writes {name}; wait for it, or {OTHER}") from None
        yield Answers(file, name, lines)


def key(index: int, prompt_id: str | int | None) -> str | int:
    """Return what a prompt is known by: its id, or its number if it has none."""
    return f"id {prompt_id!r}" if prompt_id is not None else index


def _is_torn_answer(text: bytes) -> bool:
    """Tell whether a last line without a line feed is what a killed process may have left of an answer."""
    try:
        whole = json.loads(text)
    except ValueError:
        return text.startswith(START.encode()[: len(text)])
    return isinstance(whole, dict) and _is_answer(whole)


def _is_answer(data: Mapping[str, Any]) -> bool:
    return isinstance(data.get("index"), int) and "id" in data and bool({"text", "error"} & data.keys())


def _parse(line: bytes, where: str) -> dict[str, Any]:
    """Parse an answer.

    Raises:
        PromptError: the line is none.
    """
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict) or not _is_answer(answer):
        raise PromptError(f"{where} is not an answer of specc generate; {OTHER}")
    return answer
