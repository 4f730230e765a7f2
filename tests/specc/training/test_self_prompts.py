"""Prompts that the model writes itself: which are kept, and that they are written once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from author import Author
from transformers import PreTrainedModel

from specc.huggingface import load_model, load_tokenizer
from specc.training.self_prompts import LEAST, OPENINGS, TOKENS, Filter, self_prompts

pytestmark = pytest.mark.torch
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def parts(model: Path) -> tuple[PreTrainedModel, Any]:
    return load_model(str(model)), load_tokenizer(str(model))


@pytest.fixture
def author(parts: tuple[PreTrainedModel, Any], monkeypatch: pytest.MonkeyPatch) -> Author:
    """A model that writes turns which `Filter` lets through, where the tiny model writes noise."""
    author = Author(parts[1])
    monkeypatch.setattr("specc.training.self_prompts.answer", author)
    return author


def write(parts: tuple[PreTrainedModel, Any], directory: Path, **others: Any) -> list[str]:
    options: dict[str, Any] = {"count": 12, "seed": 0, "digest": "d", "ends": [0], "directory": directory} | others
    return self_prompts(*parts, **options)


def test_prompts_are_different_and_the_seed_decides_which(
    parts: tuple[PreTrainedModel, Any], author: Author, tmp_path: Path
) -> None:
    first = write(parts, tmp_path / "a")
    assert len(set(first)) == 12
    assert first == write(parts, tmp_path / "b") != write(parts, tmp_path / "c", seed=1)


@pytest.mark.parametrize(("positions", "room"), [(4096, TOKENS), (128, None), (4, None)])
def test_turns_fit_the_positions_of_the_model(
    positions: int,
    room: int | None,
    parts: tuple[PreTrainedModel, Any],
    author: Author,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(parts[0].config, "max_position_embeddings", positions)
    write(parts, tmp_path)
    assert bool(author.texts) == (positions > 4)
    for longest, count in author.texts:
        assert count == (room or positions - longest) and LEAST <= count <= TOKENS


def test_a_second_run_writes_what_is_missing_or_of_other_options(
    parts: tuple[PreTrainedModel, Any], author: Author, tmp_path: Path
) -> None:
    first = write(parts, tmp_path)
    (file,) = tmp_path.iterdir()
    assert write(parts, tmp_path) == first and author.calls == 1
    file.write_text("{", encoding="utf-8")
    assert write(parts, tmp_path) == first and author.calls == 2
    write(parts, tmp_path, digest="another")
    assert author.calls == 3


def test_writing_ends_when_there_are_enough_prompts_or_when_too_many_are_refused(
    parts: tuple[PreTrainedModel, Any], author: Author, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("specc.training.self_prompts.LANES", 4)
    steps: list[int] = []
    assert len(write(parts, tmp_path / "a", advance=steps.append)) == 12
    assert steps == [4, 8, 12]
    author.words = ["well"] * 9
    steps.clear()
    assert len(write(parts, tmp_path / "b", advance=steps.append)) < 12
    assert len(steps) == 6


def test_a_turn_begins_with_its_opening_and_lacks_the_token_that_ends_it(
    parts: tuple[PreTrainedModel, Any], author: Author, tmp_path: Path
) -> None:
    openings = {opening.strip() for role in roles() for opening in role["openings"]}
    prompts = write(parts, tmp_path)
    assert any(prompt.startswith(opening) for prompt in prompts for opening in openings if opening)
    assert not [prompt for prompt in prompts if "<assistant>" in prompt or "<user>" in prompt or "<end>" in prompt]
    assert all(start.startswith(("<system>", "<user>")) for start in author.starts)
    assert len({start.partition("<user>")[0] for start in author.starts}) > 3


def test_a_turn_that_did_not_end_is_cut_behind_a_sentence(
    parts: tuple[PreTrainedModel, Any], author: Author, tmp_path: Path
) -> None:
    author.tail = ". And then"
    author.end = []
    assert all(prompt.endswith(".") for prompt in write(parts, tmp_path))


def test_without_a_template_the_model_writes_on_from_its_first_token(
    parts: tuple[PreTrainedModel, Any], author: Author, tmp_path: Path
) -> None:
    _, tokenizer = parts
    template, tokenizer.chat_template = tokenizer.chat_template, None
    try:
        prompts = write(parts, tmp_path)
    finally:
        tokenizer.chat_template = template
    assert len(prompts) == 12 and set(author.starts) == {"<end>"}


def test_a_template_that_refuses_a_system_message_is_asked_without_one(
    parts: tuple[PreTrainedModel, Any], author: Author, tmp_path: Path
) -> None:
    _, tokenizer = parts
    template = tokenizer.chat_template
    refusal = "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}"
    tokenizer.chat_template = refusal + template
    try:
        assert len(write(parts, tmp_path)) == 12
    finally:
        tokenizer.chat_template = template
    assert all(start.startswith("<user>") for start in author.starts)


def test_a_real_model_writes_what_is_kept_in_a_file(parts: tuple[PreTrainedModel, Any], tmp_path: Path) -> None:
    assert write(parts, tmp_path, count=2) == write(parts, tmp_path, count=2)
    (file,) = tmp_path.iterdir()
    assert len(json.loads(file.read_text(encoding="utf-8"))["turns"]) == 4


def roles() -> list[dict[str, Any]]:
    result: list[dict[str, Any]] = json.loads(OPENINGS.read_text(encoding="utf-8"))["roles"]
    return result


def test_no_opening_is_a_prompt_of_the_benchmarks() -> None:
    lines = (ROOT / "benchmarks" / "real_prompts.jsonl").read_text(encoding="utf-8").splitlines()
    measured = [json.loads(line)["prompt"] for line in lines]
    openings = {opening for role in roles() for opening in role["openings"] if len(opening) > 30}
    assert measured and openings
    assert not [prompt for prompt in measured for opening in openings if prompt.startswith(opening)]


@pytest.mark.parametrize(
    "text",
    ["", " \n", "Why?", "?? !! ... :: ;; ,,", "go on " * 30, "What is a \ufffd bridge made of?"],
)
def test_empty_short_repetitive_and_broken_texts_are_dropped(text: str) -> None:
    filtered = Filter()
    assert not filtered.add(text) and not filtered.prompts


def test_near_copies_are_dropped_and_others_stay() -> None:
    filtered = Filter()
    first = "Write a Python function that returns the largest of three numbers in a list."
    assert filtered.add(first)
    assert not filtered.add(first)
    assert not filtered.add("write a Python function that returns the largest of three numbers in a list!")
    assert filtered.add("Write a Python function that sorts the words of a text by their length.")
    assert filtered.add("How tall is a giraffe?")
    assert len(filtered.prompts) == 3
