"""Many prompts: `specc generate --prompts --output`, whole, interrupted and gone on with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from shell import copied, refused, specc, without_template

pytestmark = pytest.mark.model

LINES = (
    {"prompt": "def wrap(", "id": "a"},
    {"turns": ["hi", "and then"], "question_id": 81},
    {"messages": [{"role": "user", "content": "hi"}], "category": "x"},
)


def write(file: Path, *lines: Any) -> Path:
    """Write a prompts file. A text is a line as it is."""
    texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
    file.write_text("".join(text + "\n" for text in texts), encoding="utf-8")
    return file


def answers(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n")[:-1]]


@pytest.fixture
def argv(bundle: Path, tmp_path: Path) -> tuple[Any, ...]:
    prompts = write(tmp_path / "in.jsonl", *LINES)
    return "generate", bundle, "--prompts", prompts, "--output", tmp_path / "out.jsonl", "-n", 8


@pytest.fixture
def output(tmp_path: Path) -> Path:
    return tmp_path / "out.jsonl"


def test_every_prompt_has_a_line_with_the_answer_that_it_has_alone(
    argv: tuple[Any, ...], output: Path, bundle: Path
) -> None:
    result = specc(*argv)
    assert (result.status, result.out) == (0, "")
    assert result.err.splitlines()[-1].startswith("3 prompts, 0 answered before, 0 failed; 24 new tokens, ")
    first, second, third = answers(output)
    assert [(a["index"], a["id"]) for a in (first, second, third)] == [(0, "a"), (1, 81), (2, None)]
    alone = specc("generate", bundle, "-p", "def wrap(", "-n", 8, "--json").json
    for name in ("text", "token_ids", "finish_reason", "stop_reason"):
        assert first[name] == alone[name]
    assert first["stats"].keys() == alone.keys() - {"text", "token_ids", "finish_reason", "stop_reason"}
    assert second["text"] == third["text"] == specc("generate", bundle, "-p", "hi", "-n", 8, "--json").json["text"]


def test_answers_that_are_there_are_not_made_again(argv: tuple[Any, ...], output: Path) -> None:
    """Not even where they differ, so a marked one stays."""
    specc(*argv)
    whole = output.read_text(encoding="utf-8")
    first, *rest = whole.splitlines(keepends=True)
    marked = json.dumps({**json.loads(first), "text": "mine"}) + "\n"
    output.write_text(marked + rest[1], encoding="utf-8")
    report = specc(*argv, "--json").json
    assert (report["prompts"], report["skipped"], report["failed"], report["new_tokens"]) == (3, 2, 0, 8)
    assert [a["index"] for a in answers(output)] == [0, 2, 1]
    assert answers(output)[0]["text"] == "mine"
    assert specc(*argv, "--json").json["skipped"] == 3


@pytest.mark.parametrize("cut", [1, 7, 60, -1])
def test_a_torn_last_line_is_repaired(cut: int, argv: tuple[Any, ...], output: Path) -> None:
    """At the start of the line, within its first field, within its text, and before its line feed."""
    specc(*argv)
    whole = output.read_bytes()
    before, last = whole[: whole[:-1].rindex(b"\n") + 1], whole[whole[:-1].rindex(b"\n") + 1 :]
    output.write_bytes(before + last[:cut])
    result = specc(*argv)
    assert result.status == 0
    assert f"the last line of {output} was torn; its prompt is answered again" in result.err
    texts = [(a["index"], a["text"], a["token_ids"]) for a in answers(output)]
    assert texts == [(a["index"], a["text"], a["token_ids"]) for a in map(json.loads, whole.splitlines())]


def test_a_prompt_that_fails_is_a_line_with_its_error_and_status_1(
    argv: tuple[Any, ...], output: Path, tmp_path: Path
) -> None:
    bad = "nonsense", {"id": "b", "messages": []}, {"prompt": "x " * 400}, {"prompt": "a", "messages": []}, [1]
    write(tmp_path / "in.jsonl", *bad, LINES[0])
    result = specc(*argv, "--raw")
    assert result.status == 1
    assert "6 prompts, 0 answered before, 5 failed; " in result.err
    *errors, good = answers(output)
    assert good["id"] == "a" and good["text"]
    messages = (
        "this is not JSON",
        "messages is []",
        "line 3: the prompt has 8",
        "there are messages and a prompt",
        "expected {",
    )
    assert [m in a["error"] for m, a in zip(messages, errors, strict=True)] == [True] * 5, errors
    assert errors[1]["id"] == "b"
    again = specc(*argv, "--raw")
    assert (again.status, "6 prompts, 1 answered before, 5 failed; 0 new tokens" in again.err) == (1, True)


def test_each_prompt_counts_once_in_the_report_of_each_run(argv: tuple[Any, ...], output: Path, tmp_path: Path) -> None:
    """As answered before, as failed in this run or before, or as answered now."""
    write(tmp_path / "in.jsonl", LINES[0], "nonsense", LINES[1])
    for before, failed, new in ((0, 1, 16), (2, 1, 0)):
        report = json.loads(specc(*argv, "--json").out)
        assert (report["prompts"], report["skipped"], report["failed"]) == (3, before, failed)
        assert report["new_tokens"] == new
    output.write_text("".join(json.dumps(a) + "\n" for a in answers(output)[1:]), encoding="utf-8")
    report = json.loads(specc(*argv, "--json").out)
    assert (report["skipped"], report["failed"], report["new_tokens"]) == (1, 1, 8)


def test_a_line_of_messages_without_a_chat_template_says_what_to_give_and_the_others_go_on(
    argv: tuple[Any, ...], output: Path, tmp_path: Path
) -> None:
    plain = without_template(copied(argv[1], tmp_path))
    write(tmp_path / "in.jsonl", LINES[0], "", LINES[2])
    assert specc("generate", plain, *argv[2:]).status == 1
    first, second = answers(output)
    remedy = "messages need a chat template, and this model has none; give a prompt of text instead"
    assert first["text"] and second["error"] == f"line 3: {remedy}"


def test_the_output_of_other_prompts_is_refused_and_left_alone(
    argv: tuple[Any, ...], output: Path, tmp_path: Path
) -> None:
    specc(*argv)
    before = output.read_bytes()
    write(tmp_path / "in.jsonl", {"prompt": "a", "id": "other"})
    assert f"{output}, line 1 answers a prompt that --prompts does not have" in refused(*argv)
    assert output.read_bytes() == before


@pytest.mark.parametrize(
    "content", ["my notes", "my notes\n", '{"index": 0, "prompt": "x"}', '{"prompt": "x"}\n', "5\n"]
)
def test_a_file_of_something_else_is_refused_and_left_alone(content: str, argv: tuple[Any, ...], output: Path) -> None:
    output.write_text(content, encoding="utf-8")
    assert "choose another --output" in refused(*argv)
    assert output.read_text(encoding="utf-8") == content


def test_options_that_are_wrong_for_every_prompt_are_refused_before_the_first(
    argv: tuple[Any, ...], output: Path
) -> None:
    assert "temperature -1.0 is not a finite number of 0 or more" in refused(*argv, "--temperature", -1)
    assert "this bundle has no recipe 'no'" in refused(*argv, "--recipe", "no")
    assert not output.exists()


def test_wrong_combinations_are_one_line(argv: tuple[Any, ...], bundle: Path, tmp_path: Path) -> None:
    _, _, *files, _, _ = argv
    for part in (files[:2], files[2:]):
        assert refused("generate", bundle, *part).startswith("--prompts FILE and --output FILE belong together")
    assert refused(*argv, "-p", "hi").startswith("--prompts FILE holds all prompts; leave out --prompt")
    assert f"{tmp_path} is not a regular file" in refused("generate", bundle, *files[:3], tmp_path)
    two = write(tmp_path / "two.jsonl", {"prompt": "a", "id": 1}, {"prompt": "b", "id": 1})
    assert f"{two}: lines 1 and 2 have the id 1; make ids unique" in refused(*argv, "--prompts", two)
    assert "cannot read prompts from /nowhere" in refused(*argv, "--prompts", "/nowhere")
