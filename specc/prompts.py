"""Read prompts files: JSON lines, plain or gzipped, in the forms of Spec-Bench, of HumanEval and of specc itself."""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from specc.bounded_read import read_text, reason_of
from specc.messages import Conversation, conversation_of
from specc.runtime.errors import PromptError, check_unicode

IDS = ("id", "question_id", "task_id")  # Of specc, Spec-Bench and HumanEval.
MESSAGES = '{"messages": [{"role": "user", "content": "…"}]}'
SHOWN = 60  # characters of a wrong value in an error message
FORMS = '{"prompt": "…"} or {"turns": ["…"]}'


@dataclass(frozen=True)
class Prompt:
    """A text that a model continues.

    Attributes:
        text: the text itself.
        category: the group that a benchmark reports the prompt in.
    """

    text: str
    category: str


@dataclass(frozen=True, kw_only=True)
class PromptLine:
    """A line of a prompts file that a model answers.

    Attributes:
        index: the number of the prompt in the file, from 0.
        id: the line's `id`, `question_id` or `task_id`; None if it has none.
        source: text, a conversation, or the error that says why the line has neither.
        number: of the line in the file, from 1; empty lines count.
        later: the user's turns after the first, which only training reads; or the error of one that is no text.
    """

    index: int
    id: str | int | None
    source: str | Conversation | PromptError
    later: tuple[str, ...] | PromptError = ()
    number: int = 0


def read_lines(file: Path) -> list[PromptLine]:
    """Read what a model shall answer from each line of a file: `prompt`, `messages`, or the first of `turns`.

    Args:
        file: JSON lines, in the form that `read` takes. A line with `messages` may have `tools`, `documents` and
            `chat_template_kwargs`.

    Returns:
        One item for each line that is not empty. A line of another form has its error as source.

    Raises:
        PromptError: the file cannot be read or holds no prompt, or two lines have one id.
    """
    numbered = _numbered_lines(file)
    lines = [
        replace(_parse_line(index, line, f"{file}, line {number}"), number=number)
        for index, (number, line) in enumerate(numbered)
    ]
    first: dict[str | int, int] = {}
    for (number, _), line in zip(numbered, lines, strict=True):
        if line.id is not None and first.setdefault(line.id, number) != number:
            raise PromptError(f"{file}: lines {first[line.id]} and {number} have the id {line.id!r}; make ids unique")
    return lines


def _parse_line(index: int, line: str, where: str) -> PromptLine:
    """Parse a line that a model answers."""
    prompt_id: str | int | None = None
    source: str | Conversation | PromptError
    later: tuple[str, ...] | PromptError = ()
    try:
        data = _load(line, where)
        if not isinstance(data, dict):
            raise PromptError(f"{where}: expected {FORMS} or {MESSAGES}")
        prompt_id = next((data[key] for key in IDS if _is_id(data.get(key))), None)
        if "messages" in data and data.keys() & {"prompt", "turns"}:
            raise PromptError(f"{where}: there are messages and a prompt; keep one of them")
        if "messages" in data:
            source = conversation_of(data, where)
        else:
            source, later = _parse(line, where, "").text, _later_turns(data, where)
    except PromptError as e:
        source = e
    return PromptLine(index=index, id=prompt_id, source=source, later=later)


def _later_turns(data: dict[str, Any], where: str) -> tuple[str, ...] | PromptError:
    """Return the turns after the first, which `_parse` has checked."""
    turns = [] if "prompt" in data else data["turns"][1:]
    try:
        for number, turn in enumerate(turns, 2):
            if not isinstance(turn, str) or not turn:
                raise PromptError(f"{where}: turn {number} is {json.dumps(turn)[:SHOWN]}; give text")
            check_unicode(turn, f"{where}: turn {number}")
    except PromptError as e:
        return e
    return tuple(turns)


def _is_id(value: object) -> bool:
    return isinstance(value, (str, int)) and not isinstance(value, bool)


def read(file: Path) -> list[Prompt]:
    """Read one prompt from each line of a file.

    The text of a prompt is the value of `prompt`, or the first of `turns`. A line without `category` belongs to a
    category that has the name of the file. Other keys are ignored.

    Args:
        file: JSON lines in UTF-8, with or without a byte order mark. Only a line feed ends a line, since JSON may
            contain other line separators. A name that ends in `.gz` means a gzipped file.

    Returns:
        The prompts in the order of their lines. Empty lines are skipped.

    Raises:
        PromptError: the file cannot be read or holds no prompt, or a line has another form. The message names the line.
    """
    stem = file.name.removesuffix(".gz").removesuffix(".jsonl")
    return [_parse(line, f"{file}, line {number}", stem) for number, line in _numbered_lines(file)]


def _numbered_lines(file: Path) -> list[tuple[int, str]]:
    """Read the lines that are not empty, each with its number from 1.

    Raises:
        PromptError: the file cannot be read or holds no prompt.
    """
    try:
        with gzip.open(file) if file.suffix.lower() == ".gz" else file.open("rb") as opened:
            lines = read_text(opened, file).split("\n")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as e:
        raise PromptError(f"cannot read prompts from {file}: {reason_of(e)}; give JSON lines, {FORMS}") from e
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not numbered:
        raise PromptError(f'{file} holds no prompt; write one {{"prompt": "…"}} on each line')
    return numbered


def _load(line: str, where: str) -> Any:
    """Read the JSON value of a line.

    Raises:
        PromptError: the line is not JSON.
    """
    try:
        return json.loads(line)
    except (ValueError, RecursionError) as e:
        raise PromptError(f"{where}: this is not JSON ({e}); expected {FORMS}") from e


def _parse(line: str, where: str, category: str) -> Prompt:
    """Parse one line.

    Args:
        line: the text of the line.
        where: the name of the line, for error messages.
        category: the category of a line that names none.

    Raises:
        PromptError: the line is not JSON, or has neither `prompt` nor `turns`.
    """
    data = _load(line, where)
    try:
        text = data["prompt"] if "prompt" in data else data["turns"][0]
        category = data.get("category", category)
    except (KeyError, IndexError, TypeError, AttributeError):
        text = None
    if not isinstance(text, str) or not text or not isinstance(category, str):
        raise PromptError(f"{where}: expected {FORMS}")
    check_unicode(text, f"{where}: the prompt")
    check_unicode(category, f"{where}: the category")
    return Prompt(text, category)
