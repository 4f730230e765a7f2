"""The script of specc-kernels' aims: which step orders it makes, and which figures it computes from them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from scripts import load_script

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def widths() -> Iterator[Any]:
    sys.path.insert(0, str(FOLDER))  # bench_engines.py lies there
    yield load_script(FOLDER / "bench_widths.py")
    sys.path.remove(str(FOLDER))


def test_each_aim_of_a_step_has_its_orders(widths: Any) -> None:
    titles = {title for title, _, _ in widths.step_orders(1024)}
    peers = {"llama.cpp bf16", "llama.cpp Q4_0", "llama.cpp Q4_K_M", "genai int4"}
    assert {title for pair in widths.STEP_AIMS for title in pair} == titles | peers


def test_an_aim_is_reached_at_its_bound_from_the_right_side(widths: Any) -> None:
    least, most = widths.Aim(title="", bound=0.5), widths.Aim(title="", bound=0.5, above=True)
    assert least.reached(0.4) and least.reached(0.5) and not least.reached(0.6)
    assert most.reached(0.6) and most.reached(0.5) and not most.reached(0.4)


def test_a_figure_is_the_median_of_the_rounds_ratios(widths: Any) -> None:
    rounds = [
        {"bf16 decode": time, "fp32 decode": 20.0, "copy of bf16": 2 * time, "int4 decode": 4.0, "copy of int4": 4.0}
        for time in (10.0, 12.0, 30.0)
    ]
    figures = {aim.title: value for aim, value in widths.step_figures(rounds)}
    assert figures["decode bf16 / fp32"] == 0.6
    assert figures["bf16 decode: bandwidth / a copy's"] == 1.0  # a copy reads and writes
    assert figures["int4 decode: bandwidth / a copy's"] == 0.5
    assert not any("llama.cpp" in title for title in figures)


def test_the_best_plan_has_a_figure_for_each_category_and_peer(widths: Any) -> None:
    def row(recipe: str, category: str, speedup: float, system: str = "specc") -> dict[str, Any]:
        return {"system": system, "recipe": recipe, "category": category, "speedup": speedup}

    rows = [row(name, part, speed) for name, speed in (("a", 1.2), ("b", 1.6)) for part in ("code", "all")]
    report = {
        "rows": [*rows, row("plain", "all", 0.9, system="llama.cpp")],
        "against": [{"own_recipe": "b", "recipe": "plain", "ratio": 1.7}],
    }
    figures = [(aim.title.partition(" (")[2], value) for aim, value in widths.plan_figures(report)]
    assert figures == [("b, code)", 1.6), ("b, all)", 1.6), ("b, plain)", 1.7)]
