"""Golden outputs: how they are kept, and how tokens are compared with them."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace
from math import inf
from pathlib import Path
from typing import Any

import pytest
from doubles.generations import SessionOfAnswers
from small_bundle import MANIFEST

import specc
from specc.exactness.golden import (
    Case,
    Replayed,
    Verdict,
    check_cases,
    check_gaps,
    compare,
    confirm_near_ties,
    implied_tolerance,
    judge,
    name_engines,
    read_cases,
    read_prompts,
    replay,
    replay_exactly,
    write_cases,
)
from specc.runtime.errors import BundleError

CASE = Case("prompt", [1, 2], [5, 6, 7], [0.5, 0.0004, 0.9])
FROZEN = Path(__file__).parents[2] / "bundles" / "schema-2"
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


@pytest.mark.parametrize(("of_the_bundle", "implied"), [(1e-3, 1e-3), (1e-4, 1e-4), (0.1, 1e-3)])
def test_no_tolerance_above_that_of_a_near_tie_is_implied(of_the_bundle: float, implied: float) -> None:
    """Bundles with narrow weights once had 0.1."""
    assert implied_tolerance(replace(MANIFEST, near_tie_tolerance=of_the_bundle)) == implied


def test_a_text_that_ends_early_has_no_token_there() -> None:
    assert judge("plain", 0, [5, 6], CASE, 1e-3) == Replayed(
        recipe="plain", case=0, tokens=3, verdict=DIVERGED, at=2, token=None, expected=7, gap=0.9
    )


def test_a_judgement_alone_has_no_times() -> None:
    judged = judge("plain", 0, [5, 6, 7], CASE, 1e-3)
    assert (judged.seconds, judged.tokens_per_second, judged.plain_seconds) == (0, 0, 0)
    assert judged.mean_acceptance_length == 1


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
    assert (other.verdict, other.at, other.token, other.expected, other.gap) == (DIVERGED, 1, 9, 6, 0)


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


@pytest.mark.parametrize(("at", "engine"), [(0, "decode"), (3, "verify-lookahead")])
def test_the_engine_that_made_another_token_is_named(at: int, engine: str) -> None:
    """The first token comes from the last one of the prompt, since the rows before it are there from the replay."""
    session = specc.load(FROZEN).conversation
    case = next(case for case in read_cases(FROZEN / "golden.jsonl") if len(case.prompt_ids) > 1)
    tokens = [token ^ (index == at) for index, token in enumerate(case.token_ids)]
    cases = [Case(case.prompt, case.prompt_ids, tokens, case.gaps)]
    (result,) = name_engines(session, cases, replay(session, cases, ["lookahead"], 1e-3))
    assert (result.at, result.engine) == (at, engine)
    assert result.explanation() == (
        f"token {at} of 32 is {tokens[at]}, and lookahead gave token {case.token_ids[at]} by engine {engine}; "
        f"the reference's two best logits differ by {case.gaps[at]:.6f} there"
    )


def test_cases_are_read_as_written(tmp_path: Path) -> None:
    cases = [CASE, Case("Ünïcode\u2028", [], [], [])]
    write_cases(cases, tmp_path / "golden.jsonl")
    assert read_cases(tmp_path / "golden.jsonl") == cases


def test_empty_lines_between_cases_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "golden.jsonl"
    write_cases([CASE], file)
    file.write_text(f"\n{file.read_text()} \n{file.read_text()}")
    assert read_cases(file) == [CASE, CASE]


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / "golden.jsonl"
    file.write_bytes(b"\xff")
    with pytest.raises(BundleError, match=r"golden\.jsonl is not text \(.*\); compile the bundle again"):
        read_cases(file)


def test_cases_and_judgements_cannot_change() -> None:
    judged = judge("plain", 0, [5, 6, 7], CASE, 1e-3)
    for value, name in ((CASE, "prompt"), (judged, "verdict")):
        with pytest.raises(FrozenInstanceError):
            setattr(value, name, None)


WRONG: dict[str, tuple[tuple[Any, ...], str]] = {
    "a prompt that is a number": ((1, [1], [2], [0.5]), "prompt is not text"),
    "prompt ids that are a number": (("a", 1, [2], [0.5]), "prompt_ids is not a list of token ids"),
    "an id that is text": (("a", [1], ["2"], [0.5]), "token_ids is not a list of token ids"),
    "an id that is true": (("a", [True], [2], [0.5]), "prompt_ids is not a list of token ids"),
    "an id below zero": (("a", [1], [-1], [0.5]), "token_ids is not a list of token ids"),
    "gaps that are a number": (("a", [1], [2], 0.5), "gaps is not a list of finite numbers, 0 or more"),
    "a gap that is text": (("a", [1], [2], ["0"]), "gaps is not a list of finite numbers, 0 or more"),
    "a gap below zero": (("a", [1], [2], [-0.5]), "gaps is not a list of finite numbers, 0 or more"),
    "a gap that no float holds": (("a", [1], [2], [10**400]), "gaps is not a list of finite numbers, 0 or more"),
    "a gap without end": (("a", [1], [2], [inf]), "gaps is not a list of finite numbers, 0 or more"),
}


@pytest.mark.parametrize(("fields", "error"), WRONG.values(), ids=WRONG)
def test_a_case_of_wrong_types_is_refused(fields: tuple[Any, ...], error: str) -> None:
    with pytest.raises(TypeError, match=f"^{error}$"):
        Case(*fields)
    assert Case("a", [0], [0], [0]).gaps == [0]


MODEL = MANIFEST.model
FAR = Case("far", [1], [2], [9.0])
IMPOSSIBLE: dict[str, tuple[list[Case], str]] = {
    "none": ([], r"golden\.jsonl has no golden cases, so there is nothing to test"),
    "no prompt": ([Case("a", [], [1], [0.5])], "case 1: it has 0 and 1 tokens, of a context of 64"),
    "no answer": ([CASE, Case("a", [1], [], [])], "case 2: it has 1 and 0 tokens, of a context of 64"),
    "a context that is too small": (
        [Case("a", [1] * 63, [1, 1], [0.5, 0.5])],
        "case 1: it has 63 and 2 tokens, of a context of 64",
    ),
    "one prompt twice": (
        [CASE, FAR, Case("b", [1], [7], [0.5])],
        r"golden\.jsonl: cases 2 and 3 have one prompt, and.*",
    ),
    "a token that is too large": ([Case("a", [24], [1], [0.5])], "case 1: token 24 is not in the vocabulary of 24"),
}


@pytest.mark.parametrize(("cases", "error"), IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_cases_that_the_model_cannot_have_given_are_refused(cases: list[Case], error: str) -> None:
    with pytest.raises(BundleError, match=f"{error}; compile the bundle again$"):
        check_cases(cases, MODEL)


INDIFFERENT: dict[str, tuple[list[float], float, str]] = {
    "too few gaps": ([0.5], 1e-3, "it has 1 gaps for 3 tokens"),
    "gaps of zero": (
        [0, 0, 0],
        1e-3,
        "3 of its 3 gaps are below the tolerance of 0.001, so nearly any answer would pass",
    ),
    "gaps that no float32 has": ([1e-300, 0.5, 5e-324], 1e-3, "2 of its 3 gaps are below the tolerance of 0.001"),
    "a wide tolerance": ([0.5, 0.6, 0.9], 0.7, "2 of its 3 gaps are below the tolerance of 0.7"),
}


@pytest.mark.parametrize(("gaps", "tolerance", "error"), INDIFFERENT.values(), ids=INDIFFERENT)
def test_cases_that_nearly_any_answer_would_pass_are_refused(gaps: list[float], tolerance: float, error: str) -> None:
    with pytest.raises(BundleError, match=rf"^golden\.jsonl, case 2: {error}.*; compile the bundle again"):
        check_gaps([FAR, Case("a", [1], [5, 6, 7], gaps)], tolerance, "golden.jsonl")


def test_a_case_half_of_near_ties_passes_and_without_a_tolerance_there_are_none() -> None:
    check_gaps([CASE, Case("a", [1], [5, 6], [0, 0.5])], 1e-3, "golden.jsonl")
    check_gaps([Case("a", [1], [5, 6], [0, 0])], 0.0, "golden.jsonl")


NEAR = Replayed(recipe="plain", case=0, tokens=3, verdict=NEAR_TIE, at=1, token=9, expected=6, gap=0.0)


@pytest.mark.parametrize("recipe", ["plain", "lookahead"])
def test_a_near_tie_that_the_bundles_own_logits_contradict_is_none(recipe: str) -> None:
    """The verdict is diverged for a lossless recipe, and lossy for another one."""
    bundle = specc.load(FROZEN).bundle
    recipes = tuple(replace(each, lossless=each.name == "plain") for each in bundle.manifest.recipes)
    bundle = replace(bundle, manifest=replace(bundle.manifest, recipes=recipes))
    expected = DIVERGED if recipe == "plain" else Verdict.LOSSY
    best: dict[tuple[tuple[int, float], ...], Verdict] = {
        ((6, 1.5), (9, 1.5)): NEAR_TIE,
        ((9, 1.5), (6, 1.5)): NEAR_TIE,
        (): NEAR_TIE,  # The engine returns no logits.
        ((6, 1.5), (7, 1.5)): expected,
        ((9, 1.5), (7, 1.5)): expected,
    }
    results = [replace(NEAR, recipe=recipe, best=pair) for pair in best]
    assert [result.verdict for result in confirm_near_ties(bundle, results)] == list(best.values())


def test_cases_that_just_fit_the_model_pass() -> None:
    check_cases([CASE, Case("a", [23] * 63, [23], [0.5])], MODEL)


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
