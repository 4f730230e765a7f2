"""Prompts files in the forms that are about, and what is said of those that are none."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from specc.exactness.golden import read_prompts
from specc.messages import Conversation
from specc.prompts import Prompt, read, read_lines
from specc.runtime.errors import PromptError


def test_a_users_own_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text('{"prompt": "a"}\n\n{"turns": ["b", "c"]}\n{"prompt": "d", "category": "qa"}\n')
    assert read(file) == [Prompt("a", "mine"), Prompt("b", "mine"), Prompt("d", "qa")]
    assert read_prompts(file) == ["a", "b", "d"]


def test_the_form_of_spec_bench(tmp_path: Path) -> None:
    file = tmp_path / "q.jsonl"
    file.write_text('{"question_id": 81, "category": "writing", "turns": ["Compose it.", "Again."]}\n')
    assert read(file) == [Prompt("Compose it.", "writing")]


def test_the_form_of_human_eval(tmp_path: Path) -> None:
    file = tmp_path / "HumanEval.jsonl.gz"
    line = '{"task_id": "HumanEval/0", "prompt": "def f(", "canonical_solution": "x", "test": "assert f"}\n'
    file.write_bytes(gzip.compress(line.encode()))
    assert read(file) == [Prompt("def f(", "HumanEval")]


@pytest.mark.parametrize("text", ["", "\n", "\xff"])
def test_a_file_without_prompts_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(PromptError, match=r"prompts\.jsonl"):
        read(file)


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        "3",
        '"prompt"',
        "{}",
        '{"prompt": 3}',
        '{"prompt": ""}',
        '{"turns": []}',
        '{"turns": 1}',
        '{"prompt": "a", "category": 1}',
    ],
)
def test_a_line_that_is_no_prompt_is_named(line: str, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl"
    file.write_text('{"prompt": "a"}\n' + line + "\n")
    with pytest.raises(PromptError, match=r"prompts\.jsonl, line 2: .*turns"):
        read(file)


def test_only_a_line_feed_ends_a_line(tmp_path: Path) -> None:
    """JSON may contain the other line separators of Unicode as they are."""
    file = tmp_path / "p.jsonl"
    file.write_bytes('{"prompt": "a\u2028b\u2029c\x85d"}\r\n{"prompt": "e"}\r\n'.encode())
    assert [p.text for p in read(file)] == ["a\u2028b\u2029c\x85d", "e"]


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_a_byte_order_mark_is_no_part_of_the_first_line(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    file = tmp_path / ("p.jsonl.gz" if pack is gzip.compress else "p.jsonl")
    file.write_bytes(pack(b'\xef\xbb\xbf{"prompt": "a"}\n'))
    assert read(file) == [Prompt("a", "p")]


@pytest.mark.parametrize("line", [r'{"prompt": "a\udce9"}', r'{"prompt": "a", "category": "\ud800"}'])
def test_half_of_a_surrogate_pair_is_one_line(line: str, tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text(line)
    with pytest.raises(PromptError, match=r"p\.jsonl, line 1: .* has the lone surrogate U\+D"):
        read(file)


def test_a_line_nested_too_deep_is_named(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text("[" * 100_000)
    with pytest.raises(PromptError, match=r"p\.jsonl, line 1: this is not JSON"):
        read(file)


@pytest.mark.parametrize("data", [b"", b"plain text", gzip.compress(b'{"prompt": "a"}\n' * 99, mtime=0)[:-20]])
def test_a_damaged_archive_is_refused(data: bytes, tmp_path: Path) -> None:
    file = tmp_path / "prompts.jsonl.gz"
    file.write_bytes(data)
    with pytest.raises(PromptError, match=r"prompts\.jsonl\.gz"):
        read(file)


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PromptError, match="cannot read prompts from"):
        read(tmp_path / "none.jsonl")


def test_lines_to_answer_are_text_or_conversations_with_an_index_and_an_id(tmp_path: Path) -> None:
    message = {"role": "user", "content": "hi"}
    lines = (
        {"prompt": "a", "id": "x"},
        {"turns": ["b", "c"], "question_id": 81},
        {"prompt": "d", "task_id": "HumanEval/0"},
        {"messages": [message], "tools": [{"name": "f"}]},
    )
    text = "\n\n".join(json.dumps(line) for line in lines)
    (tmp_path / "p.jsonl").write_text("\ufeff" + text, encoding="utf-8")
    got = read_lines(tmp_path / "p.jsonl")
    assert [(line.index, line.id) for line in got] == [(0, "x"), (1, 81), (2, "HumanEval/0"), (3, None)]
    sources = ["a", "b", "d", Conversation(messages=[message], tools=[{"name": "f"}])]
    assert [line.source for line in got] == sources


def test_a_line_of_another_form_has_its_error_as_source(tmp_path: Path) -> None:
    (tmp_path / "p.jsonl").write_text('{"id": 1}\nno\n{"prompt": "a"}\n', encoding="utf-8")
    first, second, third = read_lines(tmp_path / "p.jsonl")
    assert isinstance(first.source, PromptError) and first.id == 1
    assert str(second.source).startswith(f"{tmp_path}/p.jsonl, line 2: this is not JSON")
    assert third.source == "a"
