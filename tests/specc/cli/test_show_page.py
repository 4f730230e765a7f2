"""The page of `specc show --html`, and the drawing of `--svg`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from doubles.tune_plan import tune_plan
from shell import copied, edit_manifest, refused, specc

BUNDLES = Path(__file__).parents[2] / "bundles"
FROZEN = BUNDLES / "schema-3"


def page_of(bundle: Path, directory: Path) -> str:
    """Write the page of a bundle, and return it with its lines joined."""
    file = directory / f"{80 * 'l'}.html"  # A path is not broken at the width of a terminal.
    assert specc("show", bundle, "--html", file).out == f"wrote {file}\n"
    return " ".join(file.read_text(encoding="utf-8").split())


def test_the_page_draws_layers_trees_and_masks_and_needs_no_other_file(tmp_path: Path) -> None:
    text = page_of(FROZEN, tmp_path)
    assert text.count('aria-label="tree of ') == text.count('aria-label="mask of ') == 3
    assert text.count(" layers</title>") == 0 and len(re.findall(r'aria-label="\d+ layers"', text)) == 6
    assert "2 run, 1 skipped; target, int4" in text and "1 run, 2 behind the exit; target, int4" in text
    assert "verify-medusa: 12 slots" in text and "Any tree, which an input gives" in text
    assert "specc tune has not run on this bundle" in text
    assert not re.search(r"(?:href|src)=|<script|@import|url\(", text)
    assert "width=device-width" in text and "light-dark(" in text


def test_bundles_of_earlier_schemas_have_a_page(tmp_path: Path) -> None:
    for name in ("schema-1", "schema-2"):
        assert "<h2>Sizes</h2>" in page_of(BUNDLES / name, tmp_path)


def test_the_page_has_the_plan_and_what_it_was_measured_on(tmp_path: Path) -> None:
    plan = tune_plan().to_json()
    bundle = edit_manifest(copied(FROZEN, tmp_path), lambda manifest: manifest["extra"].update(plan=plan))
    text = page_of(bundle, tmp_path)
    assert re.search(r"early-exit: predicted 1\.50 ., measured <strong>1\.25 .</strong> plain decoding\.", text)
    assert "on 2 prompts, 16 tokens each; a processor, 2 cores, 2 threads; a system, ONNX Runtime 1.31" in text
    assert re.search(r"<td>prompt-lookup</td><td>0\.90</td> <td>.</td>", text)


def test_words_of_the_bundle_are_text_and_not_markup(tmp_path: Path) -> None:
    def name(manifest: dict[str, Any]) -> None:
        manifest["model"]["source"] = "<script>x</script>"

    text = page_of(edit_manifest(copied(FROZEN, tmp_path), name), tmp_path)
    assert "<script>" not in text and "&lt;script&gt;" in text


def test_a_tree_alone_is_a_drawing(tmp_path: Path) -> None:
    file = tmp_path / "tree.svg"
    assert specc("show", FROZEN, "--engine", "verify-medusa", "--svg", file).status == 0
    assert file.read_text().startswith("<svg ") and file.read_text().count("<circle") == 12


def test_an_engine_without_a_tree_is_refused_with_those_that_have_one(tmp_path: Path) -> None:
    file = tmp_path / "tree.svg"
    assert "give --engine NAME, with branches: verify-early-exit, verify-lookahead" in refused(
        "show", FROZEN, "--svg", file
    )
    assert "draft-early-exit has no tree inside" in refused(
        "show", FROZEN, "--engine", "draft-early-exit", "--svg", file
    )
    assert "has no engine 'x'" in refused("show", FROZEN, "--engine", "x", "--svg", file)
    assert not file.exists()
    assert "No such file or directory" in refused("show", FROZEN, "--html", tmp_path / "none" / "x.html")
