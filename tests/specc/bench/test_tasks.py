"""The prompts of a benchmark as token ids."""

from __future__ import annotations

from pathlib import Path

import pytest
from doubles.peers import questions

import specc
from specc.bench.tasks import read_tasks
from specc.exactness import golden
from specc.runtime.errors import PromptError

pytestmark = pytest.mark.model


def test_without_a_file_they_are_the_golden_prompts(bundle: Path) -> None:
    tasks = read_tasks(specc.load(bundle).conversation, None, new_tokens=8)
    cases = golden.read_cases(bundle / golden.FILE)
    assert [task.ids for task in tasks.all] == [case.prompt_ids for case in cases]
    assert {task.category for task in tasks.all} == {"golden"} and tasks.cut == 0


def test_a_prompt_that_is_too_long_is_cut_at_its_beginning(bundle: Path, tmp_path: Path) -> None:
    session = specc.load(bundle).conversation
    tasks = read_tasks(session, questions(tmp_path), new_tokens=50)
    assert ([task.category for task in tasks.all], tasks.cut) == (["a", "b", "b"], 1)
    assert tasks.all[2].ids == session.text.encode("import os " * 300)[-206:]


def test_a_limit_counts_in_each_category(bundle: Path, tmp_path: Path) -> None:
    tasks = read_tasks(specc.load(bundle).conversation, questions(tmp_path), limit=1, new_tokens=50)
    assert [task.category for task in tasks.all] == ["a", "b"]


def test_a_prompt_may_be_a_users_message(bundle: Path, tmp_path: Path) -> None:
    session = specc.load(bundle).conversation
    tasks = read_tasks(session, questions(tmp_path), chat=True, limit=1, new_tokens=64)
    assert tasks.all[0].ids == session.text.encode("<user>def f\n<assistant>")


def test_an_answer_that_fills_the_cache_is_refused(bundle: Path) -> None:
    with pytest.raises(PromptError, match="256 new tokens leave no room for a prompt in 256 rows; give fewer"):
        read_tasks(specc.load(bundle).conversation, None, new_tokens=256)
