"""The script of `make real`: its prompts, the recipes that it benches, and the table that it prints."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from scripts import load_script

from specc import prompts

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "real.py"


@pytest.fixture(scope="module")
def real() -> Any:
    return load_script(SCRIPT)


def row(recipe: str, category: str, speed: float) -> dict[str, Any]:
    return {
        "recipe": recipe,
        "category": category,
        "tokens_per_second": 40 * speed,
        "speedup": speed,
        "mean_acceptance_length": None if recipe == "plain" else 2.5,
        "identical": 1.0,
        "prompts": 9 if category == "all" else 3,
    }


def test_there_are_three_short_prompts_of_each_kind(real: Any) -> None:
    read = prompts.read(real.PROMPTS)
    assert Counter(prompt.category for prompt in read) == {"chat": 3, "code": 3, "summary": 3}
    assert all(len(prompt.text) < 500 for prompt in read)


def test_the_recipes_that_the_compile_found_fastest_are_benched(real: Any) -> None:
    measured = [{"recipe": name, "speedup": speed} for name, speed in (("plain", 1), ("a", 0.5), ("b", 2), ("c", 1.2))]
    assert real.fastest(measured, 2) == ["b", "c"]


def test_the_table_has_a_row_for_each_recipe_the_fastest_first(real: Any) -> None:
    rows = [row(name, kind, s) for kind in ("chat", "code", "all") for name, s in (("plain", 1.0), ("cascade", 1.5))]
    table = real.markdown({"rows": rows, "model": {"default_recipe": "cascade"}}).splitlines()
    assert table == [
        "| recipe | tokens/s | speed-up | chat | code | tokens a step | answers of plain decoding |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        "| `cascade` * | 60.0 | 1.50 | 1.50 | 1.50 | 2.50 | 9 of 9 |",
        "| `plain` | 40.0 | 1.00 | 1.00 | 1.00 | 1.00 | 9 of 9 |",
    ]


def test_the_note_says_that_the_weights_were_rounded(real: Any) -> None:
    report = {
        "machine": {"threads": 2, "cpu": "a processor", "onnxruntime": "1.32"},
        "settings": {"count": 9, "max_new_tokens": 48, "rounds": 2},
    }
    compiled = {"provisional": True, "seconds": 90.0, "peak_rss_bytes": 2.5e9, "bytes": 6.2e8}
    text = real.note(report, compiled)
    assert "provisional default" in text and "Q4_1" in text and "90 s" in text
