"""The script that compares predicted with measured speeds of drafts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from scripts import load_script

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "draft_shapes.py"
ROWS = [{"layers": 1, "predicted": 1.2, "measured": 0.9}, {"layers": 4, "predicted": 1.1, "measured": 1.3}]


@pytest.fixture(scope="module")
def shapes() -> Any:
    return load_script(SCRIPT)


def test_the_fastest_draft_comes_first(shapes: Any) -> None:
    assert shapes.order(ROWS, "predicted") == [1, 4]
    assert shapes.order(ROWS, "measured") == [4, 1]


def test_drafts_and_bundles_that_are_there_are_used_again(
    shapes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []
    answers = {
        "tune": {"predicted": {"draft-model": 1.4}},
        "bench": {"rows": [{"recipe": "plain"}, {"recipe": "draft-model", "speedup": 1.3}]},
    }

    def run(verb: str, *arguments: object) -> str:
        runs.append(verb)
        return json.dumps(answers.get(verb, {}))

    monkeypatch.setattr(shapes, "run", run)
    (tmp_path / "draft-2").mkdir()
    row = shapes.measure(Path("model"), tmp_path, 2, 1.0, [], [Path("a"), Path("b")], 1)
    assert (row["layers"], row["predicted"], row["measured"]) == (2, 1.4, 1.3)
    assert runs == ["compile", "tune", "bench"]
