"""The heads that ship: they load, fit their models, are small, and their cards tell what they reach."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from specc.heads import digest, load_head
from specc.huggingface import load_model

pytestmark = pytest.mark.torch
ROOT = Path(__file__).parents[3]
HEADS = sorted(path for path in (ROOT / "examples" / "heads").iterdir() if path.is_dir())
MEGABYTES = 12


@pytest.mark.parametrize("directory", HEADS, ids=lambda directory: directory.name)
def test_a_head_loads_is_small_and_was_better_than_its_start(directory: Path) -> None:
    head = load_head(directory)
    card = json.loads((directory / "card.json").read_text(encoding="utf-8"))
    assert sum(file.stat().st_size for file in directory.iterdir()) <= MEGABYTES * 1e6
    assert card["architecture"] == head.config.architecture
    assert sum(parameter.numel() for parameter in head.parameters()) == card["parameters"]
    assert card["acceptance"]["chain"] > 1.4 and card["acceptance"]["tree"] > card["acceptance"]["chain"]
    assert max(card["progress"].values()) > card["progress"]["0"]
    page = (directory / "README.md").read_text(encoding="utf-8")
    assert page.startswith(f"# {directory.name}\n") and f"{card['acceptance']['chain']:.2f} tokens a step" in page


def test_the_demo_models_head_was_trained_for_it() -> None:
    model = load_model(str(ROOT / "examples" / "pycode-10m"))
    head = load_head(ROOT / "examples" / "heads" / "eagle3-pycode-10m")
    table = model.get_input_embeddings().weight
    head.attach(table)  # type: ignore[arg-type]  # the stubs of torch allow a module there
    assert digest(table) == head.config.target.digest  # type: ignore[arg-type]
