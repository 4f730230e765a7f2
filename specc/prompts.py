"""Prompts files: JSON lines, plain or gzipped, as Spec-Bench, HumanEval and users write them."""

from __future__ import annotations

import gzip
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from specc.runtime.errors import PromptError

FORMS = '{"prompt": "…"} or {"turns": ["…"]}'


@dataclass(frozen=True)
class Prompt:
    """A text to go on from. `category` groups what is reported."""

    text: str
    category: str


def read(file: Path) -> list[Prompt]:
    """A prompt a line: `prompt`, or the first of `turns`; other keys but `category` are not read.

    Where a line has no category, the file's name is one. Raises PromptError naming the line.
    """
    try:
        data = file.read_bytes()
        lines = (gzip.decompress(data) if file.suffix == ".gz" else data).decode("utf-8").splitlines()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as e:
        raise PromptError(f"cannot read prompts from {file}: {e}; give JSON lines, {FORMS}") from e
    stem = file.name.removesuffix(".gz").removesuffix(".jsonl")
    prompts = [_prompt(line, f"{file}, line {n}", stem) for n, line in enumerate(lines, 1) if line.strip()]
    if not prompts:
        raise PromptError(f'{file} holds no prompt; write one {{"prompt": "…"}} a line')
    return prompts


def _prompt(line: str, where: str, category: str) -> Prompt:
    try:
        data: Any = json.loads(line)
    except ValueError as e:
        raise PromptError(f"{where}: no JSON ({e}); expected {FORMS}") from e
    try:
        text = data["prompt"] if "prompt" in data else data["turns"][0]
        category = data.get("category", category)
    except (KeyError, IndexError, TypeError, AttributeError):
        text = None
    if not isinstance(text, str) or not text or not isinstance(category, str):
        raise PromptError(f"{where}: expected {FORMS}")
    return Prompt(text, category)
