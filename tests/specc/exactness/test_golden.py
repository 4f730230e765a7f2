"""Golden outputs: how tokens are judged, and what `specc test` makes of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from shell import copied, edit_golden, edit_manifest, refused, specc
from tiny import save_model

from specc.exactness.golden import Case, compare, read_cases, write_cases
from specc.runtime.errors import BundleError

CASE = Case("prompt", [1, 2], [5, 6, 7], [0.5, 0.0004, 0.9])


@pytest.mark.parametrize(
    ("tokens", "verdict"),
    [
        ([5, 6, 7], ("identical", None)),
        ([5, 9, 9], ("near-tie", 1)),
        ([9, 6, 7], ("diverged", 0)),
        ([5, 6, 9], ("diverged", 2)),
        ([5, 6], ("diverged", 2)),
        ([], ("diverged", 0)),
    ],
)
def test_the_first_difference_decides(tokens: list[int], verdict: tuple[str, int | None]) -> None:
    assert compare(tokens, CASE, 1e-3) == verdict


def test_cases_are_read_as_written(tmp_path: Path) -> None:
    write_cases([CASE, CASE], tmp_path / "golden.jsonl")
    assert read_cases(tmp_path / "golden.jsonl") == [CASE, CASE]


@pytest.mark.parametrize("line", ["{", "3", "{}", '{"prompt": "a", "other": 1}'])
def test_a_line_that_is_no_case_is_named(line: str, tmp_path: Path) -> None:
    file = tmp_path / "golden.jsonl"
    write_cases([CASE], file)
    with file.open("a") as f:
        f.write(line + "\n")
    with pytest.raises(BundleError, match="line 2: not a golden case"):
        read_cases(file)


@pytest.mark.model
class TestReplay:
    def test_every_recipe_gives_the_reference_s_tokens(self, bundle: Path) -> None:
        told = specc("test", bundle, "--json").json
        counts = {"cases", "tokens", "identical", "near_ties", "diverged"}
        assert told.keys() >= counts | {"tolerance", "recipes", "divergences"}
        assert (told["cases"], told["tokens"], told["replays"]) == (3, 72, 9)
        assert (told["identical"], told["near_ties"], told["diverged"]) == (9, 0, 0)
        assert [r["recipe"] for r in told["recipes"]] == ["plain", "prompt-lookup", "early-exit"]
        assert told["divergences"] == []

    def test_the_table_says_so_too(self, bundle: Path) -> None:
        ran = specc("test", bundle, "--recipe", "early-exit")
        assert ran.status == 0
        assert "3 cases, 72 tokens, 3 replays: 3 identical" in ran.out
        assert "closer than 0.001" in ran.out
        assert "prompt-lookup" not in ran.out

    def test_a_divergence_is_placed_and_fails(self, bundle: Path, tmp_path: Path) -> None:
        altered = edit_golden(copied(bundle, tmp_path), _change_token(case=1, at=4, gap=0.5))
        ran = specc("test", altered, "--json")
        assert ran.status == 1
        told = json.loads(ran.out)
        assert (told["identical"], told["near_ties"], told["diverged"]) == (6, 0, 3)
        right = read_cases(bundle / "golden.jsonl")[1].token_ids[4]
        for divergence, recipe in zip(told["divergences"], ("plain", "prompt-lookup", "early-exit"), strict=True):
            assert divergence["recipe"] == recipe
            assert (divergence["case"], divergence["at"], divergence["verdict"]) == (1, 4, "diverged")
            assert (divergence["expected"], divergence["got"], divergence["gap"]) == (right + 1, right, 0.5)

    def test_a_near_tie_passes(self, bundle: Path, tmp_path: Path) -> None:
        altered = edit_golden(copied(bundle, tmp_path), _change_token(case=0, at=2, gap=0.0002))
        told = specc("test", altered, "--json").json
        assert (told["near_ties"], told["diverged"]) == (3, 0)
        ran = specc("test", altered, "--tolerance", "0.0001")
        assert ran.status == 1
        assert "2 identical, 1 diverged" in ran.out
        assert "0.000200" in ran.out

    def test_a_reference_agrees_with_the_golden_file(self, bundle: Path, model: Path) -> None:
        told = specc("test", bundle, "--reference", model, "--recipe", "plain", "--json").json
        assert told["identical"] == 3
        assert told["golden"] == {"identical": 3, "near_ties": 0, "diverged": 0, "lossy": 0, "agrees": True}

    def test_a_reference_finds_a_wrong_golden_file(self, bundle: Path, model: Path, tmp_path: Path) -> None:
        altered = edit_golden(copied(bundle, tmp_path), _change_token(case=2, at=0, gap=1.0))
        ran = specc("test", altered, "--reference", model, "--json")
        told = json.loads(ran.out)
        assert ran.status == 1
        assert (told["identical"], told["diverged"]) == (9, 0)
        assert told["golden"] == {"identical": 2, "near_ties": 0, "diverged": 1, "lossy": 0, "agrees": False}

    def test_a_reference_of_another_vocabulary_is_refused(self, bundle: Path, tmp_path: Path) -> None:
        other = save_model(tmp_path / "other", vocab_size=600)
        assert "has a vocabulary of 600 and the bundle one of 512" in refused("test", bundle, "--reference", other)

    def test_a_reference_that_is_no_model_is_refused(self, bundle: Path, tmp_path: Path) -> None:
        assert "has no config.json" in refused("test", bundle, "--reference", tmp_path)


def _change_token(case: int, at: int, gap: float) -> Any:
    def edit(cases: list[dict[str, Any]]) -> None:
        cases[case]["token_ids"][at] += 1
        cases[case]["gaps"][at] = gap

    return edit


@pytest.mark.model
def test_what_a_lossy_recipe_changes_is_told_and_is_no_failure(bundle: Path, tmp_path: Path) -> None:
    mine = copied(bundle, tmp_path)

    def other(cases: list[dict[str, Any]]) -> None:
        cases[0]["token_ids"][1] = (cases[0]["token_ids"][1] + 1) % 100
        cases[0]["gaps"][1] = 9.0

    edit_golden(mine, other)
    assert specc("test", mine, "--recipe", "prompt-lookup").status == 1

    def lossy(manifest: dict[str, Any]) -> None:
        next(r for r in manifest["recipes"] if r["name"] == "prompt-lookup")["lossless"] = False

    edit_manifest(mine, lossy)
    told = specc("test", mine, "--recipe", "prompt-lookup", "--json").json
    assert told["lossy"] == 1 and told["diverged"] == 0
