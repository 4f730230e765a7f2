"""Prompts: those that ship, those of files, and what is refused."""

from __future__ import annotations

import copy
import json
import logging
import os
import re
from pathlib import Path
from typing import Any

import pytest
from tiny import save_model

from specc.huggingface import load_tokenizer
from specc.runtime.errors import PromptError
from specc.training.prompts import SHIPPED, Prompt, read_prompts, shipped_prompts, text_prompts

pytestmark = pytest.mark.torch
ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A tokenizer with a chat template."""
    return load_tokenizer(str(save_model(tmp_path_factory.mktemp("prompts") / "model")))


def tokens(files: list[Path], tokenizer: Any, count: int = 100, longest: int = 400) -> list[list[int]]:
    return [list(prompt.tokens) for prompt in prompts(files, tokenizer, count, longest)]


def prompts(files: list[Path], tokenizer: Any, count: int = 100, longest: int = 400) -> list[Prompt]:
    return read_prompts(files, tokenizer, count=count, longest=longest, seed=0)


def written(file: Path, *lines: object) -> Path:
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return file


def test_more_than_two_thousand_prompts_ship_and_all_are_different() -> None:
    prompts = shipped_prompts(2500, seed=0)
    assert len(set(prompts)) == 2500
    assert not [prompt for prompt in prompts if re.search(r"\{[a-z]+\}", prompt)]


def test_the_groups_of_templates_take_turns() -> None:
    groups = len(json.loads(SHIPPED.read_text(encoding="utf-8"))["groups"])
    first = shipped_prompts(groups, seed=0)
    assert sum("def " in prompt for prompt in first) <= 2 and len(first) == groups


def test_the_seed_decides_which_prompts_are_taken() -> None:
    assert shipped_prompts(50, seed=0) == shipped_prompts(50, seed=0) != shipped_prompts(50, seed=1)


def test_no_prompt_of_the_benchmarks_is_trained_on() -> None:
    lines = (ROOT / "benchmarks" / "real_prompts.jsonl").read_text(encoding="utf-8").splitlines()
    measured = {json.loads(line)["prompt"] for line in lines}
    assert measured and not measured & set(shipped_prompts(10**6, seed=0))


def test_the_chat_template_is_applied_to_each_form(tokenizer: Any, tmp_path: Path) -> None:
    file = written(
        tmp_path / "p.jsonl",
        {"prompt": "one"},
        {"turns": ["two", "more"]},
        {"messages": [{"role": "system", "content": "be short"}, {"role": "user", "content": "three"}]},
    )
    texts = sorted(tokenizer.decode(prompt) for prompt in tokens([file], tokenizer))
    assert texts == [
        "<system>be short\n<user>three\n<assistant>",
        "<user>one\n<assistant>",
        "<user>two\n<assistant>",
    ]


def test_later_turns_come_behind_the_answers(tokenizer: Any, tmp_path: Path) -> None:
    file = written(tmp_path / "p.jsonl", {"turns": ["one", "two", "three"]}, {"prompt": "alone"})
    later = [[tokenizer.decode(turn) for turn in prompt.later] for prompt in prompts([file], tokenizer)]
    assert sorted(later) == [[], ["\n<user>two\n<assistant>", "\n<user>three\n<assistant>"]]


@pytest.mark.parametrize("turn", [3, "", None])
def test_a_later_turn_that_is_no_text_is_named(turn: object, tokenizer: Any, tmp_path: Path) -> None:
    file = written(tmp_path / "p.jsonl", {"prompt": "a"}, {"turns": ["one", turn]})
    with pytest.raises(PromptError, match=r"p.jsonl, line 2: turn 2 is .*; give text"):
        prompts([file], tokenizer)


def test_texts_become_prompts_in_random_order(tokenizer: Any) -> None:
    texts = [f"number {number}" for number in range(9)]
    first, other = (text_prompts(texts, tokenizer, longest=99, seed=seed) for seed in (0, 1))
    assert set(first) == set(other) and first != other
    assert max(len(prompt.tokens) for prompt in text_prompts(texts, tokenizer, longest=9, seed=0)) == 9


def test_without_a_template_a_prompt_is_text(tokenizer: Any, tmp_path: Path) -> None:
    file = written(tmp_path / "p.jsonl", {"prompt": "one"}, {"prompt": "two"})
    template, tokenizer.chat_template = tokenizer.chat_template, None
    try:
        assert sorted(tokenizer.decode(prompt) for prompt in tokens([file], tokenizer)) == ["one", "two"]
    finally:
        tokenizer.chat_template = template


def test_a_file_of_text_is_cut_into_pieces(tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "book.txt").write_text("abc " * 100, encoding="utf-8")
    pieces = tokens([tmp_path / "book.txt"], tokenizer, longest=30)
    whole = tokenizer("abc " * 100)["input_ids"]
    assert {len(piece) for piece in pieces} <= {30, len(whole) % 30}


def test_the_middle_of_a_long_prompt_is_left_out(tokenizer: Any, tmp_path: Path) -> None:
    file = written(tmp_path / "p.jsonl", {"prompt": "first " + "and " * 50 + "last"}, {"prompt": "two"})
    longest = max(tokens([file], tokenizer, longest=24), key=len)
    assert len(longest) == 24
    assert tokenizer.decode(longest).startswith("<user>first") and tokenizer.decode(longest).endswith("<assistant>")


def test_a_prompt_that_comes_twice_is_taken_once(tokenizer: Any, tmp_path: Path) -> None:
    file = written(tmp_path / "p.jsonl", *[{"prompt": "one"}, {"prompt": "two"}] * 3)
    assert len(tokens([file], tokenizer)) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{}", r"p.jsonl, line 2: expected \{\"prompt\""),
        ('{"prompt": ""}', "p.jsonl, line 2: expected"),
        ("[1", "p.jsonl, line 2: this is not JSON"),
        ('{"messages": []}', "p.jsonl, line 2"),
    ],
)
def test_a_malformed_line_is_named(line: str, message: str, tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n' + line + "\n", encoding="utf-8")
    with pytest.raises(PromptError, match=message):
        tokens([tmp_path / "p.jsonl"], tokenizer)


def test_an_empty_file_one_prompt_and_bytes_are_refused(tokenizer: Any, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(PromptError, match="holds no prompt"):
        tokens([tmp_path / "empty.jsonl"], tokenizer)
    with pytest.raises(PromptError, match="fewer than two different prompts; give more"):
        tokens([written(tmp_path / "p.jsonl", {"prompt": "a"})], tokenizer)
    (tmp_path / "x.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PromptError, match=r"cannot read text from .*x.txt.*; give UTF-8 text or JSON lines"):
        tokens([tmp_path / "x.txt"], tokenizer)


def test_a_pipe_is_refused_and_does_not_hang(tmp_path: Path, tokenizer: Any) -> None:
    for name in ("p.jsonl", "p.txt", "p.gz"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(PromptError, match=rf"{name} is no regular file; write its text to a file"):
            prompts([tmp_path / name], tokenizer)


@pytest.mark.parametrize("name", ["u.jsonl", "U.JSONL", "u.Json"])
def test_the_ending_of_a_file_may_have_capital_letters(name: str, tmp_path: Path, tokenizer: Any) -> None:
    file = written(tmp_path / name, {"prompt": "first words"}, {"prompt": "second words"})
    assert len(prompts([file], tokenizer)) == 2
    assert not any("prompt" in tokenizer.decode(one) for one in tokens([file], tokenizer))


def test_messages_for_a_model_without_a_template_name_the_line_and_the_remedy(tmp_path: Path, tokenizer: Any) -> None:
    file = tmp_path / "m.jsonl"
    lines = ({"prompt": "a"}, {"messages": [{"role": "user", "content": "b"}]})
    file.write_text("\n\n".join(map(json.dumps, lines)))
    assert len(prompts([file], tokenizer)) == 2  # with a template
    bare = copy.deepcopy(tokenizer)
    bare.chat_template = None
    with pytest.raises(
        PromptError, match=r"m\.jsonl, line 3: the model has no chat template for messages; give \{"
    ) as e:
        prompts([file], bare)
    assert "http" not in str(e.value) and "\n" not in str(e.value)


def test_a_prompt_longer_than_the_context_gives_no_warning(
    tmp_path: Path, tokenizer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    records: list[str] = []
    handler = logging.Handler()
    monkeypatch.setattr(handler, "emit", lambda record: records.append(record.getMessage()))
    long = "word " * 2000
    file = written(tmp_path / "l.jsonl", {"prompt": long}, {"turns": ["short", long]}, {"prompt": "other"})
    logging.getLogger("transformers").addHandler(handler)
    try:
        short = copy.deepcopy(tokenizer)
        short.model_max_length, short.deprecation_warnings = 256, {}
        assert max(map(len, tokens([file], short, longest=64))) == 64
        assert not records
        short.deprecation_warnings = {}
        short(long)  # without care there is one
        assert "Token indices" in records[0]
    finally:
        logging.getLogger("transformers").removeHandler(handler)
