"""The summary of a bundle that `specc show` prints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from doubles.tune_plan import tune_plan
from shell import copied, edit_manifest, specc

from specc.cli.show_summary import default_recipe, recipes_by_exactness
from specc.runtime.bundle import open_bundle
from specc.runtime.manifest import COMPILED_AT, Manifest

FROZEN = Path(__file__).parents[2] / "bundles/schema-1"
ROW = {"recipe": "prompt-lookup", "speedup": 1.27, "identical": 3, "near-tie": 1, "diverged": 0}


@pytest.fixture
def manifest() -> Manifest:
    return open_bundle(FROZEN).manifest


def text(bundle: Path) -> str:
    """The summary with single spaces."""
    return " ".join(specc("show", bundle).out.split())


def test_it_takes_ten_lines_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    *lines, hint = specc("show", FROZEN).out.splitlines()
    assert len(lines) <= 10
    assert hint.startswith("For more: specc show --all")


def test_it_says_what_the_manifest_says() -> None:
    summary = text(FROZEN)
    for part in (
        "model tests/tiny.py, revision local, 3 layers",
        "weights fp32, 528.6 kB",
        "context 256 tokens",
        "default prompt-lookup, not measured",
        "lossless plain, prompt-lookup, layer-skip",
        "engines 21 by onnx, no lanes; no native code",
        "golden 4 cases, near-tie tolerance 0.001",
        "specc 0.1.0, torch 2.13.0+cpu, onnxruntime 1.31.1",
    ):
        assert part in summary


def test_the_date_is_that_of_the_compile(tmp_path: Path) -> None:
    frozen = copied(FROZEN, tmp_path)
    edit_manifest(frozen, lambda m: m["extra"].update({COMPILED_AT: "2031-02-03T04:05:06Z"}))
    assert "compiled 2031-02-03 by specc" in text(frozen)


def test_it_says_how_many_requests_run_in_one_call() -> None:
    frozen = FROZEN.with_name("schema-2")
    lanes = max(engine.block.lanes for engine in open_bundle(frozen).manifest.engines)
    assert lanes > 1 and f"by onnx, {lanes} lanes; no native code" in text(frozen)


@pytest.mark.parametrize(
    ("rounding", "line"),
    [
        ({"method": "gguf", "types": {"Q4_1": 210, "F32": 61}}, "rounded before the compile: gguf Q4_1, F32"),
        ({"method": "awq", "bits": 4}, "rounded before the compile: awq"),
    ],
)
def test_weights_that_were_rounded_before_are_said_to_be(rounding: dict[str, Any], line: str, tmp_path: Path) -> None:
    assert "rounded before" not in text(FROZEN)
    frozen = copied(FROZEN, tmp_path)
    edit_manifest(frozen, lambda m: m["extra"].update(weights_rounded_from=rounding))
    assert line in text(frozen)


def test_the_speed_of_the_default_comes_with_the_number_of_prompts(manifest: Manifest) -> None:
    measured = replace(manifest, measured=(ROW,))
    assert default_recipe(measured) == "prompt-lookup, 1.27 x plain decoding on 4 golden prompts"
    plan = {"plan": tune_plan().to_json()}
    tuned = replace(measured, default_recipe="early-exit", extra=plan)
    assert default_recipe(tuned).startswith("early-exit, 1.25 x plain decoding on ")
    assert default_recipe(tuned).endswith("(specc tune)")
    assert default_recipe(replace(manifest, default_recipe="plain")) == "plain, one token a step"


def test_recipes_are_listed_by_whether_they_are_lossless(manifest: Manifest) -> None:
    first, *others = manifest.recipes
    mixed = replace(manifest, recipes=(replace(first, lossless=False), *others))
    assert recipes_by_exactness(mixed) == {"lossy": [first.name], "lossless": [recipe.name for recipe in others]}


def test_recipes_over_a_target_that_depends_on_the_width_are_near(manifest: Manifest) -> None:
    engines = tuple(replace(engine, block=replace(engine.block, weights="int4")) for engine in manifest.engines)
    rounded = recipes_by_exactness(replace(manifest, engines=engines))
    assert rounded["lossless"] == ["plain"]
    assert "prompt-lookup" in rounded["near"]


@pytest.mark.parametrize("provisional", [True, False])
def test_a_default_that_rests_on_too_little_is_said_to(provisional: bool, tmp_path: Path) -> None:
    frozen = copied(FROZEN, tmp_path)
    edit_manifest(frozen, lambda m: m.update(provisional=provisional))
    assert ("The default is provisional" in text(frozen)) is provisional


def test_it_says_which_libraries_the_engines_need() -> None:
    assert "needs onnxruntime 1.22 or newer" in text(FROZEN.with_name("schema-2"))
    assert "needs" not in text(FROZEN)


def test_operators_stand_for_their_library_and_its_newest_version(tmp_path: Path) -> None:
    frozen = copied(FROZEN, tmp_path)
    versions = iter(("0.1.0", "0.10.0", "0.9.0"))

    def add_operators(manifest: dict[str, Any]) -> None:
        for engine, version in zip(manifest["engines"], versions, strict=False):
            engine["needs"] = {**engine["needs"], f"specc::Operator{version}": version}

    edit_manifest(frozen, add_operators)
    assert "specc-kernels 0.10.0 or newer" in text(frozen)
