"""Read prompts files: JSON lines, plain or gzipped, in the forms of Spec-Bench, of HumanEval and of specc itself."""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specc.runtime.errors import PromptError, check_unicode

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
    try:
        data = file.read_bytes()
        lines = (gzip.decompress(data) if file.suffix == ".gz" else data).decode("utf-8-sig").split("\n")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as e:
        raise PromptError(f"cannot read prompts from {file}: {e}; give JSON lines, {FORMS}") from e
    stem = file.name.removesuffix(".gz").removesuffix(".jsonl")
    prompts = [_parse(line, f"{file}, line {number}", stem) for number, line in enumerate(lines, 1) if line.strip()]
    if not prompts:
        raise PromptError(f'{file} holds no prompt; write one {{"prompt": "…"}} on each line')
    return prompts


def _parse(line: str, where: str, category: str) -> Prompt:
    """Parse one line.

    Args:
        line: the text of the line.
        where: the name of the line, for error messages.
        category: the category of a line that names none.

    Raises:
        PromptError: the line is not JSON, or has neither `prompt` nor `turns`.
    """
    try:
        data: Any = json.loads(line)
    except (ValueError, RecursionError) as e:
        raise PromptError(f"{where}: this is not JSON ({e}); expected {FORMS}") from e
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
