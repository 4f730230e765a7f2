"""`specc test`: the golden cases of a bundle replayed, and what is reported of them."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bad_bundles import KINDS as BUNDLES
from bad_bundles import REMEDY
from rich.console import Console, RenderableType
from shell import copied, edit_golden, edit_manifest, refused, specc
from tiny import save_model

from specc.cli.test import proof_table
from specc.exactness import golden
from specc.exactness.golden import Case, Replayed, Verdict, read_cases
from specc.exactness.replay import MeasuredPerplexity, Proof, prove
from specc.runtime.bundle import Bundle, open_bundle
from specc.runtime.errors import BundleError

FROZEN = Path(__file__).parents[2] / "bundles" / "schema-1"
CASES = [Case("a", [1], [5, 6, 7], [0.1, 0.2, 0.3]), Case("b", [2], [8], [0.4])]


def bundle_with_a_lossy_recipe() -> Bundle:
    """Return a bundle whose second recipe is not lossless; the first is plain decoding."""
    bundle = open_bundle(FROZEN)
    first, second, *others = bundle.manifest.recipes
    recipes = (first, replace(second, lossless=False), *others)
    return replace(
        bundle, manifest=replace(bundle.manifest, recipes=recipes, extra={"original": {"agreement": 0.5, "tokens": 4}})
    )


def outcome(recipe: str, case: int, verdict: Verdict, at: int | None = None, **changes: Any) -> Replayed:
    tokens = CASES[case].token_ids
    expected = None if at is None else tokens[at]
    return Replayed(recipe=recipe, case=case, tokens=len(tokens), verdict=verdict, at=at, expected=expected, **changes)


def text_of(renderable: RenderableType) -> str:
    """Return what a wide terminal shows."""
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(renderable)
    return console.export_text()


def proof(*replayed: Replayed, **changes: Any) -> Proof:
    return Proof(bundle=bundle_with_a_lossy_recipe(), cases=CASES, replayed=replayed, tolerance=0.5, **changes)


def test_nothing_but_a_divergence_fails_a_bundle() -> None:
    harmless = (outcome("plain", 0, Verdict.IDENTICAL), outcome("plain", 1, Verdict.NEAR_TIE, 0))
    assert proof(*harmless, outcome("plain", 0, Verdict.LOSSY, 1)).passed
    diverged = outcome("plain", 1, Verdict.DIVERGED, 0)
    assert not proof(*harmless, diverged).passed
    assert not proof(*harmless, reference="model", golden=[diverged]).passed


def test_the_report_counts_replays_and_sums_up_recipes() -> None:
    lossy = bundle_with_a_lossy_recipe().manifest.recipes[1].name
    report = proof(
        outcome("plain", 0, Verdict.IDENTICAL, seconds=2.0, mean_acceptance_length=1.0),
        outcome(
            lossy,
            0,
            Verdict.LOSSY,
            1,
            token=9,
            gap=0.2,
            seconds=0.5,
            mean_acceptance_length=3.0,
            best=((6, 1.5), (9, 1.25)),
        ),
        outcome("plain", 1, Verdict.IDENTICAL, seconds=0.0, mean_acceptance_length=2.0),
        outcome(lossy, 1, Verdict.NEAR_TIE, 0, token=None, gap=0.4, seconds=0.5, mean_acceptance_length=1.0),
    ).to_json()
    counts = {"identical": 2, "near_ties": 1, "diverged": 0, "lossy": 1}
    assert {name: report[name] for name in counts} == counts
    assert (report["cases"], report["tokens"], report["replays"], report["tolerance"]) == (2, 4, 4, 0.5)
    assert (report["golden"], report["reference"], report["perplexity"]) == (None, None, None)
    assert report["original"] == {"agreement": 0.5, "tokens": 4}
    plain, other = report["recipes"]
    assert (plain["recipe"], plain["lossless"], plain["identical"]) == ("plain", True, 2)
    assert (plain["tokens_per_second"], plain["mean_acceptance_length"]) == (2 / 2.0, 1.5)
    assert (other["recipe"], other["lossless"], other["lossy"], other["near_ties"]) == (lossy, False, 1, 1)
    assert (other["tokens_per_second"], other["mean_acceptance_length"]) == (2 / 1.0, 2.0)
    common = {"recipe": lossy, "engine": ""}
    best = [[6, 1.5], [9, 1.25]]
    first = {"best": best, "case": 0, "prompt": "a", "at": 1, "expected": 6, "got": 9, "gap": 0.2, "verdict": "lossy"}
    second = {
        "best": [],
        "case": 1,
        "prompt": "b",
        "at": 0,
        "expected": 8,
        "got": None,
        "gap": 0.4,
        "verdict": "near-tie",
    }
    assert report["divergences"] == [{**common, **first}, {**common, **second}]
    assert json.loads(json.dumps(report)) == report


def test_an_exact_proof_has_the_speed_of_plain_decoding_at_each_width() -> None:
    lossy = bundle_with_a_lossy_recipe().manifest.recipes[1].name
    exact = proof(outcome(lossy, 0, Verdict.IDENTICAL, seconds=0.5, plain_seconds=2.0), exact=True)
    (row,) = exact.rows()
    assert (row.lossless, row.tokens_per_second, row.plain_tokens_per_second) == (True, 2 / 0.5, 2 / 2.0)
    assert exact.to_json()["exact"] is True
    assert exact.to_json()["recipes"][0]["plain_tokens_per_second"] == 2 / 2.0


def test_the_table_has_the_typed_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not go through JSON."""
    monkeypatch.setattr(Proof, "to_json", None)
    results = outcome("plain", 0, Verdict.IDENTICAL), outcome("plain", 1, Verdict.DIVERGED, 0, token=3, gap=0.25)
    for exact in (False, True):
        table = text_of(proof_table(proof(*results, exact=exact)))
        assert "1 identical, 1 diverged" in table and "0.250000" in table
        assert ("plain at its width" in table) is exact


def test_a_recipe_that_took_no_time_has_no_speed() -> None:
    (row,) = proof(outcome("plain", 0, Verdict.IDENTICAL)).to_json()["recipes"]
    assert row["tokens_per_second"] == 0.0


def test_a_reference_is_reported_with_how_the_golden_file_compares() -> None:
    same, tie = outcome("file", 0, Verdict.IDENTICAL), outcome("file", 1, Verdict.NEAR_TIE, 0)
    plain = outcome("plain", 0, Verdict.IDENTICAL)
    report = proof(plain, reference="model", golden=[same, tie]).to_json()
    assert report["golden"] == {"identical": 1, "near_ties": 1, "diverged": 0, "lossy": 0, "agrees": False}
    assert [row["recipe"] for row in report["divergences"]] == ["file"]
    assert proof(plain, reference="model", golden=[same]).to_json()["golden"]["agrees"] is True


def test_perplexity_is_reported_beside_that_of_the_original() -> None:
    measured = MeasuredPerplexity("book.txt", 9, 3.5, None)
    report = proof(outcome("plain", 0, Verdict.IDENTICAL), perplexity=measured).to_json()
    assert report["perplexity"] == {"text": "book.txt", "tokens": 9, "value": 3.5, "original": None}


@pytest.mark.model
class TestFrozen:
    """The bundle that every later runtime must replay, as far as `prove` reports on it."""

    def test_each_recipe_is_replayed_once_in_the_order_of_its_names(self) -> None:
        stages: list[tuple[str, int, int]] = []
        matches = prove(FROZEN, ["prompt-lookup", "plain", "plain"], stage=lambda *stage: stages.append(stage))
        cases = len(matches.cases)
        assert [r.recipe for r in matches.replayed] == ["prompt-lookup", "plain"] * cases
        assert matches.passed and matches.reference is None and not matches.golden
        title = f"replay {cases} cases by 2 recipes"
        assert [s for s in stages if s[0] == title] == [(title, n, 2 * cases) for n in range(2 * cases + 1)]
        assert matches.perplexity and matches.perplexity.text == "golden prompts"
        runs = [s for s in stages if s[0] == "perplexity on golden prompts"]
        assert [done for _, done, _ in runs] == list(range(1, len(runs) + 1)) and runs[-1][1] == runs[-1][2]

    def test_the_tolerance_is_that_of_the_bundle_unless_the_user_gives_one(self) -> None:
        assert prove(FROZEN, ["plain"]).tolerance == open_bundle(FROZEN).manifest.near_tie_tolerance
        assert prove(FROZEN, ["plain"], tolerance=0.0).tolerance == 0.0


def _change_token(case: int, at: int, gap: float) -> Any:
    def edit(cases: list[dict[str, Any]]) -> None:
        cases[case]["token_ids"][at] += 1
        cases[case]["gaps"][at] = gap

    return edit


@pytest.mark.model
class TestCommand:
    """`specc test` on a tiny model, whose golden file is altered."""

    def test_every_recipe_gives_the_tokens_of_the_reference(self, bundle: Path) -> None:
        report = specc("test", bundle, "--json").json
        counts = {"cases", "tokens", "identical", "near_ties", "diverged"}
        assert report.keys() >= counts | {"tolerance", "recipes", "divergences"}
        assert (report["cases"], report["tokens"], report["replays"]) == (3, 72, 9)
        assert (report["identical"], report["near_ties"], report["diverged"]) == (9, 0, 0)
        assert [r["recipe"] for r in report["recipes"]] == ["plain", "prompt-lookup", "early-exit"]
        assert report["divergences"] == []

    def test_the_table_says_so_too(self, bundle: Path) -> None:
        result = specc("test", bundle, "--recipe", "early-exit")
        assert result.status == 0
        assert "3 cases, 72 tokens, 3 replays: 3 identical" in result.out
        assert "closer than 0.001" in result.out
        assert "prompt-lookup" not in result.out

    def test_a_divergence_is_placed_and_fails(self, bundle: Path, tmp_path: Path) -> None:
        altered = edit_golden(copied(bundle, tmp_path), _change_token(case=1, at=4, gap=0.5))
        result = specc("test", altered, "--json")
        assert result.status == 1
        report = json.loads(result.out)
        assert (report["identical"], report["near_ties"], report["diverged"]) == (6, 0, 3)
        right = read_cases(bundle / "golden.jsonl")[1].token_ids[4]
        for divergence, recipe in zip(report["divergences"], ("plain", "prompt-lookup", "early-exit"), strict=True):
            assert divergence["recipe"] == recipe
            assert (divergence["case"], divergence["at"], divergence["verdict"]) == (1, 4, "diverged")
            assert (divergence["expected"], divergence["got"], divergence["gap"]) == (right + 1, right, 0.5)

    def test_a_near_tie_passes_where_both_tokens_are_the_bundles_best(self, bundle: Path, tmp_path: Path) -> None:
        altered = edit_golden(copied(bundle, tmp_path), _change_token(case=0, at=2, gap=0.0002))
        wrong = json.loads(specc("test", altered, "--json").out)
        assert (wrong["near_ties"], wrong["diverged"]) == (0, 3)
        second = int(wrong["divergences"][0]["best"][1][0])
        edit_golden(altered, lambda cases: cases[0]["token_ids"].__setitem__(2, second))
        report = specc("test", altered, "--json").json
        assert (report["near_ties"], report["diverged"]) == (3, 0)
        result = specc("test", altered, "--tolerance", "0.0001")
        assert result.status == 1
        assert "2 identical, 1 diverged" in result.out
        assert "0.000200" in result.out

    def test_a_reference_agrees_with_the_golden_file(self, bundle: Path, model: Path) -> None:
        report = specc("test", bundle, "--reference", model, "--recipe", "plain", "--json").json
        assert report["identical"] == 3
        assert report["golden"] == {"identical": 3, "near_ties": 0, "diverged": 0, "lossy": 0, "agrees": True}

    def test_a_reference_finds_a_wrong_golden_file(self, bundle: Path, model: Path, tmp_path: Path) -> None:
        altered = edit_golden(copied(bundle, tmp_path), _change_token(case=2, at=0, gap=1.0))
        result = specc("test", altered, "--reference", model, "--json")
        report = json.loads(result.out)
        assert result.status == 1
        assert (report["identical"], report["diverged"]) == (9, 0)
        assert report["golden"] == {"identical": 2, "near_ties": 0, "diverged": 1, "lossy": 0, "agrees": False}

    def test_a_reference_of_another_vocabulary_is_refused(self, bundle: Path, tmp_path: Path) -> None:
        other = save_model(tmp_path / "other", vocab_size=600)
        assert "has a vocabulary of 600 and the bundle one of 512" in refused("test", bundle, "--reference", other)

    def test_a_reference_that_is_not_a_model_is_refused(self, bundle: Path, tmp_path: Path) -> None:
        assert "has no config.json" in refused("test", bundle, "--reference", tmp_path)

    def test_what_a_lossy_recipe_changes_is_reported_and_passes(self, bundle: Path, tmp_path: Path) -> None:
        copy = copied(bundle, tmp_path)

        def change(cases: list[dict[str, Any]]) -> None:
            cases[0]["token_ids"][1] = (cases[0]["token_ids"][1] + 1) % 100
            cases[0]["gaps"][1] = 9.0

        edit_golden(copy, change)
        assert specc("test", copy, "--recipe", "prompt-lookup").status == 1

        def lossy(manifest: dict[str, Any]) -> None:
            next(r for r in manifest["recipes"] if r["name"] == "prompt-lookup")["lossless"] = False

        edit_manifest(copy, lossy)
        report = specc("test", copy, "--recipe", "prompt-lookup", "--json").json
        assert report["lossy"] == 1 and report["diverged"] == 0


@pytest.mark.parametrize("kind", BUNDLES)
def test_a_bundle_that_cannot_be_used_is_one_line_with_a_remedy(kind: str, tmp_path: Path) -> None:
    damage, _ = BUNDLES[kind]
    bundle = copied(FROZEN, tmp_path)
    damage(bundle)
    assert REMEDY.search(refused("test", bundle, "--recipe", "plain"))


def test_too_little_memory_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(bundle: Bundle) -> None:
        raise MemoryError

    monkeypatch.setattr(golden, "checked_cases", fail)
    assert refused("test", FROZEN).startswith("there is too little memory; free some")


GOLDEN_EDITS: dict[str, tuple[Callable[[list[dict[str, Any]]], Any], str]] = {
    "empty": (list.clear, "has no golden cases, so there is nothing to test"),
    "of a larger vocabulary": (lambda cases: cases[0]["token_ids"].append(512), "token 512 is not in the vocabulary"),
    "of a larger context": (lambda cases: cases[0]["prompt_ids"].extend([1] * 256), "of a context of 256"),
    "without tokens": (lambda cases: cases[1].update(token_ids=[], gaps=[]), "case 2: it has"),
    "with too few gaps": (lambda cases: cases[0]["gaps"].pop(), "gaps for"),
    "with gaps that are no numbers": (
        lambda cases: cases[0]["gaps"].__setitem__(0, float("nan")),
        "line 1: not a golden",
    ),
    "with gaps of zero": (lambda cases: cases[1].update(gaps=[0] * len(cases[1]["gaps"])), "case 2: 32 of its 32 gaps"),
    "with gaps below zero": (lambda cases: cases[0]["gaps"].__setitem__(0, -1), "line 1: not a golden"),
    "with gaps without end": (lambda cases: cases[0]["gaps"].__setitem__(0, float("inf")), "line 1: not a golden"),
    "with ids that are no numbers": (lambda cases: cases[0].update(token_ids=["a"]), "line 1: not a golden"),
    "with ids below zero": (lambda cases: cases[0]["prompt_ids"].append(-1), "line 1: not a golden"),
    "with another field": (lambda cases: cases[0].update(colour=1), "line 1: not a golden"),
}


@pytest.mark.parametrize(("edit", "named"), GOLDEN_EDITS.values(), ids=GOLDEN_EDITS)
def test_golden_cases_that_would_prove_nothing_are_refused(edit: Any, named: str, tmp_path: Path) -> None:
    assert named in refused("test", edit_golden(copied(FROZEN, tmp_path), edit))


def test_golden_cases_of_another_model_fail(tmp_path: Path) -> None:
    def exchange(cases: list[dict[str, Any]]) -> None:
        for case in cases:
            case.update(
                token_ids=[(token + 1) % 500 + 1 for token in case["token_ids"]], gaps=[9.0] * len(case["gaps"])
            )

    bundle = edit_golden(copied(FROZEN, tmp_path), exchange)
    assert specc("test", bundle, "--recipe", "plain").status == 1


@pytest.mark.parametrize(
    ("tolerance", "reason"),
    [
        ("inf", "invalid value for '--tolerance': inf is not a finite number"),
        ("0.5", "the tolerance is 0.5; of a target in fp32 it is 0 to 0.001"),
        ("1e9", "the tolerance is 1e+09; of a target in fp32 it is 0 to 0.001"),
    ],
)
def test_a_tolerance_that_admits_anything_is_refused(tolerance: str, reason: str) -> None:
    line = refused("test", FROZEN, "--recipe", "plain", "--tolerance", tolerance)
    assert line.startswith(reason)


def test_a_tolerance_that_is_no_number_is_refused() -> None:
    with pytest.raises(BundleError, match="the tolerance is nan"):
        prove(FROZEN, ["plain"], tolerance=float("nan"))
