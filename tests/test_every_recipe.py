"""Every recipe without a head, compiled over the tiny model: each gives the tokens of the original model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from quick_compile import compile_quickly

import specc
from specc.compiler import Options
from specc.exactness import golden
from specc.recipes import METHODS

pytestmark = [pytest.mark.torch, pytest.mark.model, pytest.mark.usefixtures("translations")]

PROMPTS = ("def wrap(text, width=70):\n    return", "import os, sys\nimport os, sys\nimport", "Ünïcode: ")
CORPUS = Path(__file__).parents[1] / "runtime" / "drafters"


def test_every_lossless_recipe_is_identical_to_the_original_model(model: Path, tmp_path: Path) -> None:
    """The draft model is the target itself, so most drafts are accepted."""
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": p}) + "\n" for p in PROMPTS), encoding="utf-8")
    recipes = tuple(name for name, method in METHODS.items() if not method.head)
    options = Options(
        model=str(model),
        output=tmp_path / "all.specc",
        recipes=recipes,
        assistant_model=str(model),
        untuned_model=str(model),
        corpus=CORPUS,
        prompts=prompts,
        dtype="fp32",
    )
    compile_quickly(options)
    with specc.load(options.output) as session:
        cases = golden.read_cases(session.bundle.file(golden.FILE))
        lossless = [name for name in recipes if METHODS[name].lossless]
        tolerance = session.bundle.manifest.near_tie_tolerance
        results = golden.replay(session.conversation, cases, lossless, tolerance)
    assert len(results) == len(PROMPTS) * len(lossless) > 90
    assert [result for result in results if result.verdict != "identical"] == []
    drafting = {result.recipe for result in results if result.mean_acceptance_length > 1}
    assert len(drafting) > len(lossless) // 2
