"""Texts that were served: the prompts of a file, with the answers that `specc generate --prompts` wrote to them."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from specc.bounded_read import read_text, reason_of
from specc.prompts import PromptLine, read_lines
from specc.runtime.errors import PromptError
from specc.training.distil import Text
from specc.training.prompt_files import check_regular
from specc.training.prompts import encode, tokens_of


def served_texts(data: Sequence[Path], answers: Path, tokenizer: Any, seed: int) -> list[Text]:
    """Return what was served, in random order.

    Args:
        data: one file of prompts.
        answers: the answers to them, as `specc generate --prompts` writes them. Those with an error are left out.
        tokenizer: of transformers.
        seed: of the order.

    Raises:
        PromptError: there are several files of prompts, a file cannot be read, or an answer belongs to no prompt.
    """
    if len(data) != 1:
        raise PromptError(f"{answers} answers one file of prompts, and there are {len(data)}; give one --data")
    check_regular(data[0])
    lines = {line.index: line for line in read_lines(data[0])}
    ids = {line.id: line for line in lines.values() if line.id is not None}
    texts = []
    for number, row in enumerate(_lines(answers), 1):
        where = f"{answers}, line {number}"
        answer = _parse(row, where)
        if "error" in answer:
            continue
        line = ids.get(answer["id"]) if answer["id"] is not None else lines.get(answer["index"])
        if line is None:
            raise PromptError(f"{where} answers a prompt that {data[0]} does not have; give the prompts of that run")
        prompt = _prompt(line, answer, tokenizer, where)
        if answer["token_ids"]:
            texts.append(Text(tokens=torch.tensor([*prompt, *answer["token_ids"]]), prompt=len(prompt)))
    if len(texts) < 2:
        raise PromptError(f"{answers} has fewer than two answers; give more")
    random.Random(seed).shuffle(texts)
    return texts


def _lines(file: Path) -> list[str]:
    """Return the lines of a file that are not empty. Raises PromptError if it cannot be read."""
    check_regular(file)
    try:
        with file.open("rb") as opened:
            rows = read_text(opened, file).split("\n")
    except (OSError, UnicodeDecodeError) as e:
        raise PromptError(f"cannot read {file}: {reason_of(e)}; give the --output of 'specc generate --prompts'") from e
    return [row for row in rows if row.strip()]


def _parse(row: str, where: str) -> dict[str, Any]:
    """Parse an answer. Raises PromptError if the line is none."""
    try:
        answer = json.loads(row)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict) or not {"index", "id"} <= answer.keys() or not _has_tokens(answer):
        raise PromptError(
            f"{where} is not an answer of specc generate; give the --output of 'specc generate --prompts'"
        )
    return answer


def _has_tokens(answer: Mapping[str, Any]) -> bool:
    """Tell whether an answer has an error, or tokens."""
    tokens = answer.get("token_ids")
    return "error" in answer or (isinstance(tokens, list) and all(type(token) is int for token in tokens))


def _prompt(line: PromptLine, answer: Mapping[str, Any], tokenizer: Any, where: str) -> tuple[int, ...]:
    """Return the tokens of the prompt of an answer, through the chat template if the answer came so."""
    if isinstance(line.source, PromptError):
        raise line.source
    if isinstance(line.source, str) and not answer.get("chat"):
        return tuple(encode(line.source, tokenizer))
    return tokens_of(line.source, tokenizer, where)
