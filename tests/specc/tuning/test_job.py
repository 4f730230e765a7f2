"""What `specc tune` starts from: the recipes as compiled, all widths, and prompts that leave room for an answer."""

from __future__ import annotations

from pathlib import Path

import pytest
from doubles.tune_plan import tune_plan

from specc.recipes.defaults import WIDTHS
from specc.runtime.bundle import open_bundle
from specc.tuning import job as module
from specc.tuning.job import as_compiled, prepare, with_single_threads
from specc.tuning.plan import CompiledRecipe
from specc.tuning.policy import TUNING

pytestmark = pytest.mark.model


def test_an_earlier_plan_is_undone(bundle: Path) -> None:
    manifest = open_bundle(bundle).manifest
    assert as_compiled(manifest) == manifest
    before = CompiledRecipe(verify=("decode", "verify-chain-2"), parameters={"prompt_lookup_num_tokens": 1})
    tuned = tune_plan(compiled={"prompt-lookup": before}).stored_in(with_single_threads(manifest, ["decode"]))
    undone = as_compiled(tuned)
    recipe = next(recipe for recipe in undone.recipes if recipe.name == "prompt-lookup")
    assert (recipe.verify, recipe.parameters) == (before.verify, before.parameters)
    assert {engine.threads for engine in undone.engines} == {0}


def test_a_long_prompt_loses_its_beginning(bundle: Path) -> None:
    opened = open_bundle(bundle)
    job = prepare(opened, ["import os " * 300, "x"], 50, TUNING)
    whole = job.session.text.encode("import os " * 300)
    assert job.prompts == [whole[-206:], job.session.text.encode("x")]


def test_recipes_may_use_every_width_and_the_plan_depends_on_all_their_engines(bundle: Path) -> None:
    job = prepare(open_bundle(bundle), ["x"], 8, TUNING)
    assert list(job.chains) == [1, *WIDTHS.curve]
    assert [recipe.name for recipe in job.drafting] == ["prompt-lookup", "early-exit"]
    assert set(job.engines) == {*job.chains.values(), "verify-early-exit", "draft-early-exit"}
    assert job.contexts == [64]  # The tiny model has room for 256 tokens.


def test_engines_that_are_faster_on_one_thread_run_on_one(bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "faster_on_one_thread", lambda bundle, names, context: ["draft-early-exit"])
    job = prepare(open_bundle(bundle), ["x"], 8, TUNING)
    assert [engine.name for engine in job.bundle.manifest.engines if engine.threads == 1] == ["draft-early-exit"]
