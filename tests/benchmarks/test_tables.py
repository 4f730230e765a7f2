"""The tables of benchmarks: names of recipes are whole, however narrow the terminal is."""

from __future__ import annotations

from pathlib import Path

import pytest
from scripts import load_script

from specc.cli import console

FOLDER = Path(__file__).parents[2] / "benchmarks"
RECIPES = ("plain", "prompt-lookup", "quantized-self-draft")


def test_the_tables_of_runtimes_have_whole_names(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = load_script(FOLDER / "bench_runtimes.py")
    monkeypatch.setenv("COLUMNS", "30")
    seconds = {recipe: {"python": [0.5, 0.5], "c": [0.25, 0.5], "node": [0.5, 1.0]} for recipe in RECIPES}
    console.show(script.speed_table(seconds, "a/model: 2 cases, 1 rounds"))
    console.show(script.memory_table({"python": (400.0, 500.0), "c": (200.0, 600.0)}))
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.strip()}
    assert rows["prompt-lookup"] == ["0.5000", "0.3750", "0.7500", "1.500", "0.750"]
    assert rows["quantized-self-draft"] == rows["plain"] == rows["prompt-lookup"]
    assert rows["c"] == ["200", "0.50", "600", "1.20"]


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.py")), ids=lambda file: file.stem)
def test_no_benchmark_prints_a_table_that_rich_may_cut(file: Path) -> None:
    """Rich cuts names at the width of a terminal, and at 80 columns where there is none."""
    text = file.read_text(encoding="utf-8")
    assert "Console()" not in text and (" Table(" not in text or "soft_wrap=True" in text)
