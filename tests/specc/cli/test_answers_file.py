"""The file of answers: one process at a time writes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from specc.cli.answers_file import open_answers
from specc.prompts import PromptLine
from specc.runtime.errors import PromptError

LINES = [PromptLine(index=i, id=name, source="text") for i, name in enumerate(("a", None))]


def test_a_line_is_in_the_file_as_soon_as_it_is_written(tmp_path: Path) -> None:
    with open_answers(tmp_path / "out", LINES) as answers:
        answers.write({"index": 0, "id": "a", "text": "ü\u2028"})
        assert json.loads((tmp_path / "out").read_text(encoding="utf-8"))["text"] == "ü\u2028"
        answers.write({"index": 1, "id": None, "error": "no"})
    with open_answers(tmp_path / "out", LINES) as answers:
        assert len(answers.done) == 2 and not answers.repaired


def test_a_prompt_is_known_by_its_id_where_it_has_one(tmp_path: Path) -> None:
    """So a line that moved in the file of prompts keeps its answer."""
    (tmp_path / "out").write_text('{"index": 0, "id": "a", "text": ""}\n', encoding="utf-8")
    moved = [PromptLine(index=i, id=name, source="text") for i, name in enumerate((None, "a"))]
    with open_answers(tmp_path / "out", moved) as answers:
        assert list(answers.done) == ["id 'a'"]


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    first = open_answers(tmp_path / "out", LINES)
    second = open_answers(tmp_path / "out", LINES)
    with first, pytest.raises(PromptError, match=r"another process writes .*/out; wait"), second:
        pass
