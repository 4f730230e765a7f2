"""The verb `tune`: its table, its JSON, and the prompts files that it refuses."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from doubles.tune_plan import tune_plan
from rich.console import RenderableType
from shell import copied, refused, specc

from specc.cli import console
from specc.cli.tune import plan_table
from specc.runtime.bundle import open_bundle
from specc.tuning.plan import TunePlan


def printed(part: RenderableType) -> list[str]:
    out = console.out()
    with out.capture() as captured:
        out.print(part)
    return [" ".join(line.split()) for line in captured.get().splitlines()]


def test_a_plan_is_drawn_with_its_choice_and_its_curve() -> None:
    lines = printed(plan_table(tune_plan()))
    assert "early-exit * 3 1.50 1.25" in lines
    assert "prompt-lookup 0.90" in lines
    assert "* The plan: early-exit, 1.25 times as fast as plain decoding." in lines
    note = "Other trees would be faster: early-exit. A compile with --tune takes them where tree is a parameter."
    assert note in " ".join(lines)
    assert "These engines run faster on one thread: draft-early-exit." in lines
    assert "4 3.00 ms 1.50 x" in lines
    assert "drafts of: their tokens at most" in lines
    curve = "slots: tokens that one step computes; after N: with N rows of text in the cache; x: times as long"
    assert curve in " ".join(lines)


def test_a_finalist_says_how_large_its_drafts_are() -> None:
    def sizes(**parameters: float) -> str:
        best = replace(tune_plan().tried[0], parameters=parameters)
        return printed(plan_table(tune_plan(tried=(best,))))[2]

    assert (
        sizes(num_speculative_tokens=4, assistant_confidence_threshold=0.3) == "early-exit * 4, sure to 0.3 1.50 1.25"
    )
    assert sizes(num_speculative_tokens=11, max_depth=2) == "early-exit * 11, 2 deep 1.50 1.25"


def test_the_legend_of_the_sizes_has_the_words_that_are_in_the_table_and_no_others() -> None:
    def words(**parameters: float) -> list[bool]:
        best = replace(tune_plan().tried[0], parameters=parameters)
        text = " ".join(printed(plan_table(tune_plan(tried=(best,)))))
        return [word in text for word in ("drafts of: their tokens", "deep: levels", "sure to: a draft ends where")]

    assert words(num_speculative_tokens=4) == [True, False, False]
    assert words(num_speculative_tokens=4, max_depth=2) == [True, True, False]
    assert words(num_speculative_tokens=4, assistant_confidence_threshold=0.3) == [True, False, True]
    assert words() == [False, False, False]


def test_plain_decoding_is_explained() -> None:
    lines = printed(plan_table(tune_plan(recipe="plain", trees={}, single_threaded=())))
    assert "No recipe is 5% faster than plain decoding here, so the plan is plain decoding." in lines
    assert not any("--tune" in line or "thread" in line for line in lines)


@pytest.mark.model
class TestVerb:
    def test_the_json_is_the_plan_in_the_manifest(self, bundle: Path, tmp_path: Path) -> None:
        copy = copied(bundle, tmp_path)
        plan = specc("tune", copy, "--limit", 1, "--max-new-tokens", 4, "--json").json
        manifest = open_bundle(copy).manifest
        assert manifest.extra["plan"] == plan
        assert TunePlan.from_json(plan) == TunePlan.of(manifest)

    @pytest.mark.slow  # It tunes as the test of the JSON does.
    def test_the_table_has_the_curve(self, bundle: Path, tmp_path: Path) -> None:
        out = specc("tune", copied(bundle, tmp_path), "--limit", 1, "--max-new-tokens", 4).out
        assert "slots, measured" in out and "after 64" in out

    def test_a_prompts_file_that_holds_none_is_named_with_its_line(self, bundle: Path, tmp_path: Path) -> None:
        file = tmp_path / "p.jsonl"
        file.write_text(json.dumps({"prompt": "a"}) + "\n{}\n")
        assert "p.jsonl, line 2" in refused("tune", bundle, "--prompts", file)
        file.write_text("")
        assert "holds no prompt" in refused("tune", bundle, "--prompts", file)
