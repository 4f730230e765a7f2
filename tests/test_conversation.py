"""A conversation: the session keeps the rows of what it has seen, and runs only what is new."""

from __future__ import annotations

from pathlib import Path

import pytest

from specc import load
from specc.runtime.session import Session

pytestmark = pytest.mark.model

PROMPT = "def wrap(text, width=70):\n"


def test_a_second_turn_runs_only_what_is_new(bundle: Path) -> None:
    session = load(bundle).conversation
    first = [i % 400 for i in range(130)]
    answer = session.generate(first, 10, recipe="early-exit", guard=False).token_ids
    assert _calls(session, "prefill") == 3  # 130 tokens, 64 at once
    second = [*first, *answer, 5]
    got = session.generate(second, 10, recipe="plain")
    assert _calls(session, "prefill") + _calls(session, "decode") <= 3 + 1 + 9  # the prompt's new tokens, then one each
    assert got.token_ids == load(bundle).generate(second, 10, recipe="plain").token_ids


def test_another_beginning_runs_anew(bundle: Path) -> None:
    session = load(bundle).conversation
    session.generate([7, 8, 9] * 30, 10)
    other = [7, 8, 9, 9] * 25
    assert session.generate(other, 10).token_ids == load(bundle).generate(other, 10).token_ids


def test_an_abandoned_stream_leaves_the_session_sound(bundle: Path) -> None:
    session = load(bundle).conversation
    next(session.stream(PROMPT, 50, recipe="early-exit"))
    assert session.generate(PROMPT, 20).token_ids == load(bundle).generate(PROMPT, 20).token_ids


def _calls(session: Session, engine: str) -> int:
    return session.engines[engine].calls
