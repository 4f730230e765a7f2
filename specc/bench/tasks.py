"""Turn prompts into the token ids that every system of a benchmark gets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from specc import prompts
from specc.exactness import golden
from specc.runtime.errors import PromptError
from specc.runtime.session import Session


@dataclass(frozen=True)
class Task:
    """A prompt as token ids, and the category that it is reported in."""

    ids: list[int]
    category: str


@dataclass(frozen=True)
class Tasks:
    """The prompts of a benchmark.

    Attributes:
        all: the prompts in their order.
        cut: how many of them lost their beginning, to leave room for an answer.
    """

    all: list[Task]
    cut: int


def read_tasks(
    session: Session, file: Path | None, *, chat: bool = False, limit: int | None = None, new_tokens: int
) -> Tasks:
    """Read the prompts and encode them with the bundle's tokenizer.

    Args:
        session: a session on the bundle.
        file: a prompts file. None takes the bundle's golden prompts.
        chat: treat each prompt as a user's message, for the model's chat template.
        limit: how many prompts of each category are taken at most.
        new_tokens: how many tokens of answer must fit after each prompt.

    Raises:
        PromptError: the file cannot be read, or no prompt fits beside an answer of this length.
    """
    context = session.bundle.manifest.model.context
    room = context - new_tokens
    if room < 1:
        raise PromptError(
            f"{new_tokens} new tokens leave no room for a prompt in {context} rows; give fewer with --max-new-tokens"
        )
    tasks = _at_most(limit, _golden_tasks(session) if file is None else _file_tasks(session, file, chat))
    return Tasks([Task(task.ids[-room:], task.category) for task in tasks], sum(len(task.ids) > room for task in tasks))


def _golden_tasks(session: Session) -> list[Task]:
    """Return the bundle's golden prompts."""
    cases = golden.read_cases(session.bundle.file(golden.FILE))
    return [Task(case.prompt_ids, "golden") for case in cases]


def _file_tasks(session: Session, file: Path, chat: bool) -> list[Task]:
    """Return the prompts of a file, encoded as text or as a user's message."""
    tasks = []
    for prompt in prompts.read(file):
        text = [{"role": "user", "content": prompt.text}] if chat else prompt.text
        tasks.append(Task(session.text.encode(text), prompt.category))
    return tasks


def _at_most(limit: int | None, tasks: Iterable[Task]) -> list[Task]:
    """Return the first `limit` tasks of each category; all of them if the limit is None."""
    counts: Counter[str] = Counter()
    picks = []
    for task in tasks:
        counts[task.category] += 1
        if limit is None or counts[task.category] <= limit:
            picks.append(task)
    return picks
