"""Golden cases added to a bundle, and two golden files compared."""

from __future__ import annotations

import json
import os
from math import inf, nan
from pathlib import Path

import pytest
from shell import copied, edit_golden, specc

from specc.exactness import golden, golden_file
from specc.exactness.golden import Verdict
from specc.exactness.golden_file import add_cases, compare_files
from specc.exactness.replay import prove
from specc.runtime.bundle import open_bundle
from specc.runtime.errors import BundleError, CaptureError, PromptError

FROZEN = Path(__file__).parents[2] / "bundles" / "schema-2"
TOLERANCE = 1e-3


def prompts_file(directory: Path, *prompts: str) -> Path:
    file = directory / "more.jsonl"
    file.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in prompts), encoding="utf-8")
    return file


def test_cases_are_added_behind_the_others_and_replay(tmp_path: Path) -> None:
    bundle = copied(FROZEN, tmp_path)
    before = golden.read_cases(bundle / golden.FILE)
    changed = add_cases(bundle, prompts_file(tmp_path, "two words", "and three"), tokens=9)
    cases = golden.read_cases(changed.file(golden.FILE))
    assert cases[:-2] == before
    assert [case.prompt for case in cases[-2:]] == ["two words", "and three"]
    assert all(len(case.token_ids) == len(case.gaps) == 9 for case in cases[-2:])
    proof = prove(bundle, ["plain", "lookahead"])
    assert proof.passed and len(proof.replayed) == 2 * len(cases)


def test_weights_are_not_copied_when_cases_are_added(tmp_path: Path) -> None:
    bundle = copied(FROZEN, tmp_path)
    number = os.stat(bundle / "weights.safetensors").st_ino
    add_cases(bundle, prompts_file(tmp_path, "two words"), tokens=2)
    assert os.stat(bundle / "weights.safetensors").st_ino == number


def test_a_prompt_that_is_a_case_already_is_refused_and_nothing_changes(tmp_path: Path) -> None:
    bundle = copied(FROZEN, tmp_path)
    text = golden.read_cases(bundle / golden.FILE)[0].prompt
    with pytest.raises(PromptError, match="already; leave it out"):
        add_cases(bundle, prompts_file(tmp_path, text), tokens=2)
    with pytest.raises(PromptError, match="already; leave it out"):
        add_cases(bundle, prompts_file(tmp_path, "new", "new"), tokens=2)
    assert (bundle / "manifest.json").read_bytes() == (FROZEN / "manifest.json").read_bytes()


def test_cases_that_any_answer_would_pass_are_refused_and_nothing_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = copied(FROZEN, tmp_path)
    case = golden.Case("two words", [1, 2], [3, 4, 5], [0.0, 0.0, 0.5])
    monkeypatch.setattr(golden_file, "decode_plainly", lambda *_: case)
    with pytest.raises(PromptError, match=r"'two words' more than half of 3 tokens are near-ties.*; leave it out"):
        add_cases(bundle, prompts_file(tmp_path, "two words"), tokens=3)
    assert (bundle / "manifest.json").read_bytes() == (FROZEN / "manifest.json").read_bytes()


def test_a_link_to_a_bundle_stays_a_link(tmp_path: Path) -> None:
    bundle, link = copied(FROZEN, tmp_path), tmp_path / "link.specc"
    link.symlink_to(bundle)
    add_cases(link, prompts_file(tmp_path, "two words"), tokens=2)
    assert link.is_symlink() and len(golden.read_cases(bundle / golden.FILE)) == 5
    assert not list(tmp_path.glob(".*"))


def test_a_reference_without_a_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match="the reference has no name; name a model directory"):
        add_cases(FROZEN, prompts_file(tmp_path, "two words"), tokens=2, reference="")


def test_cases_that_exceed_the_context_are_refused(tmp_path: Path) -> None:
    bundle = copied(FROZEN, tmp_path)
    context = open_bundle(bundle).manifest.model.context
    with pytest.raises(PromptError, match=f"exceed the context of {context}"):
        add_cases(bundle, prompts_file(tmp_path, "two words"), tokens=context)


def test_equal_files_have_no_difference() -> None:
    difference = compare_files(FROZEN, FROZEN / golden.FILE, TOLERANCE)
    assert difference.is_empty and len(difference.compared) == 4


def test_a_difference_says_where_and_how_near(tmp_path: Path) -> None:
    def change(cases: list[dict[str, list[int]]]) -> None:
        cases[1]["token_ids"][3] ^= 1

    difference = compare_files(FROZEN, edit_golden(copied(FROZEN, tmp_path), change), TOLERANCE)
    assert not difference.is_empty
    (result,) = [result for result in difference.compared if result.at is not None]
    assert (result.case, result.at, result.verdict) == (1, 3, Verdict.DIVERGED)
    near = edit_golden(tmp_path / "copy.specc", lambda cases: cases[1]["gaps"].__setitem__(3, 0.0009))
    assert compare_files(near, FROZEN, TOLERANCE).compared[1].verdict is Verdict.NEAR_TIE


@pytest.mark.parametrize("tolerance", [100.0, inf, nan, -1.0])
def test_a_tolerance_that_lets_any_difference_pass_is_refused(tolerance: float) -> None:
    with pytest.raises(BundleError, match=r"the tolerance (is|of) .*; (give a number of 0 or more|compile .* smaller)"):
        compare_files(FROZEN, FROZEN, tolerance)


@pytest.mark.parametrize("changes", [{"gaps": [0.0] * 32}, {"gaps": [0.5]}, {"token_ids": [], "gaps": []}])
def test_a_file_that_lets_any_difference_pass_is_refused(changes: dict[str, list[float]], tmp_path: Path) -> None:
    bundle = edit_golden(copied(FROZEN, tmp_path), lambda cases: cases[2].update(changes))
    with pytest.raises(BundleError, match="case 3: "):
        compare_files(bundle / golden.FILE, FROZEN, TOLERANCE)


def test_an_answer_that_is_longer_is_a_difference_and_one_that_is_shorter(tmp_path: Path) -> None:
    def shorten(cases: list[dict[str, list[int]]]) -> None:
        cases[1].update(token_ids=cases[1]["token_ids"][:8], gaps=cases[1]["gaps"][:8])

    short = edit_golden(copied(FROZEN, tmp_path), shorten)
    token = golden.read_cases(FROZEN / golden.FILE)[1].token_ids[8]
    for pair, expected, got in (((FROZEN, short), token, None), ((short, FROZEN), None, token)):
        result = compare_files(*pair, TOLERANCE).compared[1]
        assert (result.verdict, result.at, result.expected, result.token) == (Verdict.DIVERGED, 8, expected, got)
        printed = specc("golden", "diff", *pair)
        assert printed.status == 1 and "the end" in printed.out


def test_prompts_that_only_one_file_has_are_named(tmp_path: Path) -> None:
    bundle = edit_golden(copied(FROZEN, tmp_path), lambda cases: cases.pop(0))
    first = golden.read_cases(FROZEN / golden.FILE)[0].prompt
    assert compare_files(FROZEN, bundle, TOLERANCE).missing == (first,)
    assert compare_files(bundle, FROZEN, TOLERANCE).new == (first,)


def test_what_is_no_golden_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="name a bundle, or a golden"):
        compare_files(FROZEN, tmp_path / "nothing.jsonl", TOLERANCE)
    (tmp_path / "empty.jsonl").write_text("", encoding="utf-8")
    with pytest.raises(BundleError, match="has no golden cases"):
        compare_files(tmp_path / "empty.jsonl", FROZEN, TOLERANCE)
    golden.write_cases(golden.read_cases(FROZEN / golden.FILE) * 2, tmp_path / "twice.jsonl")
    for pair in ((FROZEN, tmp_path / "twice.jsonl"), (tmp_path / "twice.jsonl", FROZEN)):
        with pytest.raises(BundleError, match=r"twice\.jsonl: cases 1 and 5 have one prompt"):
            compare_files(*pair, TOLERANCE)
