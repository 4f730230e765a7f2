"""Golden outputs: how they are kept, and how tokens are compared with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from doubles.generations import SessionOfAnswers

from specc.exactness.golden import (
    Case,
    Replayed,
    Verdict,
    compare,
    judge,
    read_cases,
    read_prompts,
    replay,
    replay_exactly,
    write_cases,
)
from specc.runtime.errors import BundleError

CASE = Case("prompt", [1, 2], [5, 6, 7], [0.5, 0.0004, 0.9])
IDENTICAL, NEAR_TIE, DIVERGED = Verdict.IDENTICAL, Verdict.NEAR_TIE, Verdict.DIVERGED


@pytest.mark.parametrize(
    ("tokens", "verdict"),
    [
        ([5, 6, 7], (IDENTICAL, None)),
        ([5, 9, 9], (NEAR_TIE, 1)),
        ([9, 6, 7], (DIVERGED, 0)),
        ([9, 9, 7], (DIVERGED, 0)),
        ([5, 6, 9], (DIVERGED, 2)),
        ([5, 6], (DIVERGED, 2)),
        ([5], (DIVERGED, 1)),
        ([], (DIVERGED, 0)),
        ([5, 6, 7, 8], (IDENTICAL, None)),
    ],
)
def test_the_first_difference_decides(tokens: list[int], verdict: tuple[Verdict, int | None]) -> None:
    assert compare(tokens, CASE, 1e-3) == verdict


def test_a_gap_as_large_as_the_tolerance_is_not_a_near_tie() -> None:
    assert compare([5, 9, 9], CASE, 0.0004) == (DIVERGED, 1)
    assert compare([5, 9, 9], CASE, 0.00041) == (NEAR_TIE, 1)


def test_a_judgement_has_the_place_the_token_and_the_gap_of_the_reference() -> None:
    assert judge("early-exit", 4, [5, 9, 9], CASE, 1e-3) == Replayed(
        recipe="early-exit", case=4, tokens=3, verdict=NEAR_TIE, at=1, token=9, expected=6, gap=0.0004
    )
    assert judge("plain", 0, [5, 6, 7], CASE, 1e-3) == Replayed(recipe="plain", case=0, tokens=3, verdict=IDENTICAL)


def test_a_text_that_ends_early_has_no_token_there() -> None:
    assert judge("plain", 0, [5, 6], CASE, 1e-3) == Replayed(
        recipe="plain", case=0, tokens=3, verdict=DIVERGED, at=2, token=None, expected=7, gap=0.9
    )


def test_each_case_is_decoded_by_each_recipe_with_the_guard_off() -> None:
    other = Case("other", [3], [8, 8], [0.1, 0.1])
    answers = {"plain": {(1, 2): [5, 6, 7], (3,): [8, 8]}, "draft": {(1, 2): [5, 6, 1], (3,): [8]}}
    session: Any = SessionOfAnswers(answers)
    calls: list[None] = []
    results = replay(session, [CASE, other], iter(("plain", "draft")), 1e-3, lambda: calls.append(None))
    assert [(r.recipe, r.case, r.verdict, r.at) for r in results] == [
        ("plain", 0, IDENTICAL, None),
        ("draft", 0, DIVERGED, 2),
        ("plain", 1, IDENTICAL, None),
        ("draft", 1, DIVERGED, 1),
    ]
    assert session.requests == [
        ((1, 2), 3, "plain", False),
        ((1, 2), 3, "draft", False),
        ((3,), 2, "plain", False),
        ((3,), 2, "draft", False),
    ]
    assert len(calls) == 4


def test_an_exact_replay_compares_with_plain_decoding_through_the_recipes_own_engine() -> None:
    """Neither the golden tokens nor their gaps count."""
    answers = {"a": {(1, 2): [8, 8, 8]}, "plain/a": {(1, 2): [8, 8, 8]}}
    answers |= {"b": {(1, 2): [5, 9, 7]}, "plain/b": {(1, 2): [5, 6, 7]}}
    session: Any = SessionOfAnswers(answers, seconds=2.0)
    one, other = replay_exactly(session, [CASE], ["a", "b"])
    assert (one.verdict, one.plain_seconds, one.seconds) == (IDENTICAL, 2.0, 2.0)
    assert (other.verdict, other.at, other.token, other.expected) == (DIVERGED, 1, 9, 6)


def test_a_difference_of_a_recipe_that_is_not_lossless_is_lossy_unless_it_is_a_near_tie() -> None:
    for answer, verdict in (([5, 6, 9], Verdict.LOSSY), ([5, 9, 9], NEAR_TIE), ([5, 6, 7], IDENTICAL)):
        session: Any = SessionOfAnswers({"a": {(1, 2): answer}}, lossless=False)
        assert [r.verdict for r in replay(session, [CASE], ["a"], 1e-3)] == [verdict]


def test_a_replay_keeps_the_speed_of_the_decoding() -> None:
    session: Any = SessionOfAnswers({"plain": {(1, 2): [5, 6, 7]}}, seconds=2.0, drafts=2, accepted=3)
    (result,) = replay(session, [CASE], ["plain"], 1e-3)
    assert result.seconds == 2.0
    assert result.tokens_per_second == pytest.approx(1.0)
    assert result.mean_acceptance_length == pytest.approx(2.5)


def test_cases_are_read_as_written(tmp_path: Path) -> None:
    cases = [CASE, Case("Ünïcode\u2028", [], [], [])]
    write_cases(cases, tmp_path / "golden.jsonl")
    assert read_cases(tmp_path / "golden.jsonl") == cases


@pytest.mark.parametrize("line", ["{", "3", "{}", '{"prompt": "a", "other": 1}'])
def test_a_line_that_is_not_a_case_is_named(line: str, tmp_path: Path) -> None:
    file = tmp_path / "golden.jsonl"
    write_cases([CASE], file)
    with file.open("a") as f:
        f.write(line + "\n")
    with pytest.raises(BundleError, match=r"golden\.jsonl, line 2: not a golden case .*; compile the bundle again"):
        read_cases(file)


def test_golden_prompts_are_the_texts_of_a_prompts_file(tmp_path: Path) -> None:
    file = tmp_path / "p.jsonl"
    file.write_text('{"prompt": "a", "category": "x"}\n{"turns": ["b", "c"]}\n')
    assert read_prompts(file) == ["a", "b"]
