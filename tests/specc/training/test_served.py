"""Texts that were served, for a draft model to learn from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tiny import TEMPLATE

from specc.huggingface import load_tokenizer
from specc.runtime.errors import PromptError
from specc.training.served import served_texts

pytestmark = pytest.mark.torch
PROMPTS: list[dict[str, Any]] = [{"prompt": "def f"}, {"prompt": "import os", "id": "b"}, {"prompt": "class A"}]
ANSWERS: list[dict[str, Any]] = [
    {"index": 1, "id": "b", "chat": False, "token_ids": [7, 8]},
    {"index": 0, "id": None, "chat": True, "token_ids": [5]},
    {"index": 2, "id": None, "error": "too long"},
]


def write(file: Path, rows: list[Any]) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def test_each_answer_stands_behind_its_prompt_as_it_was_served(model: Path, tmp_path: Path) -> None:
    tokenizer = load_tokenizer(str(model))
    prompts, answers = write(tmp_path / "p.jsonl", PROMPTS), write(tmp_path / "a.jsonl", ANSWERS)
    first, second = sorted(served_texts([prompts], answers, tokenizer, seed=0), key=len)
    assert TEMPLATE and first.tokens.tolist() == [*tokenizer.encode("import os"), 7, 8]
    chat = tokenizer.apply_chat_template(
        [{"role": "user", "content": "def f"}], add_generation_prompt=True, tokenize=False
    )
    assert second.tokens.tolist() == [*tokenizer.encode(chat), 5]
    assert (len(first) - first.prompt, len(second) - second.prompt) == (2, 1)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"index": 9, "id": None, "token_ids": [1]}], "line 1 answers a prompt that .*p.jsonl does not have"),
        ([{"index": 0, "id": None, "token_ids": ["a"]}], "line 1 is not an answer of specc generate"),
        ([{"prompt": "a", "answer": "b"}], "line 1 is not an answer of specc generate"),
        ([7], "line 1 is not an answer"),
        (ANSWERS[1:], "has fewer than two answers; give more"),
    ],
)
def test_what_is_no_answer_is_named(rows: list[Any], message: str, model: Path, tmp_path: Path) -> None:
    prompts, answers = write(tmp_path / "p.jsonl", PROMPTS), write(tmp_path / "a.jsonl", rows)
    with pytest.raises(PromptError, match=message):
        served_texts([prompts], answers, load_tokenizer(str(model)), seed=0)


def test_answers_belong_to_one_file_of_prompts(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="answers one file of prompts, and there are 0; give one --data"):
        served_texts([], tmp_path / "a.jsonl", None, seed=0)
    with pytest.raises(PromptError, match=r"cannot read .*a\.jsonl"):
        served_texts([write(tmp_path / "p.jsonl", PROMPTS)], tmp_path / "a.jsonl", None, seed=0)
