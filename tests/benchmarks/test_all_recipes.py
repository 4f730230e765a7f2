"""The script that measures all recipes: what it leaves out, and its table."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scripts import load_script

from specc.recipes import METHODS

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "all_recipes.py"


@pytest.fixture(scope="module")
def script() -> Any:
    return load_script(SCRIPT)


def test_what_a_model_lacks_is_named(script: Any) -> None:
    for name, setting in script.SETTINGS.items():
        reasons = {m.name: script.missing(m, setting) for m in METHODS.values()}
        absent = {recipe for recipe, reason in reasons.items() if reason}
        assert "medusa" in absent and "no head of the architecture medusa" in reasons["medusa"]
        assert ("draft-model" in absent) == ("fs-gen-proxy" in absent) == (name == "smollm2")
        assert not {"plain", "swift", "superposed", "rasd", "eagle3"} & absent
    assert script.missing(METHODS["bild"], script.SETTINGS["smollm2"]).startswith("no smaller model has the tokenizer")


def test_its_models_heads_and_corpora_exist(script: Any) -> None:
    for setting in script.SETTINGS.values():
        assert all(path.exists() for path in (*setting.options.values(), *setting.heads.values()))


def test_the_table_has_losers_and_says_what_is_lossy(script: Any) -> None:
    speeds = {"plain": 1.0, "bild": 1.5, "jacobi": 0.5}
    rows = [
        {
            "recipe": recipe,
            "category": category,
            "tokens_per_second": 40 * speed,
            "speedup": speed,
            "mean_acceptance_length": None if recipe == "plain" else 2.5,
            "changed": 0.25 if recipe == "bild" else 0.0,
        }
        for category in ("chat", "code", "all")
        for recipe, speed in speeds.items()
    ]
    assert script.markdown({"rows": rows}).splitlines() == [
        "| recipe | tokens/s | x plain | chat | code | tokens a step | changed |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| `bild` (lossy) | 60.0 | 1.50 | 1.50 | 1.50 | 2.50 | 25% |",
        "| `plain` | 40.0 | 1.00 | 1.00 | 1.00 | 1.00 | 0% |",
        "| `jacobi` | 20.0 | 0.50 | 0.50 | 0.50 | 2.50 | 0% |",
    ]
