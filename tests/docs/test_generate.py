"""The generated parts of the pages are up to date, and the generator notices if they are not."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from pages import ROOT, CodeBlock, blocks, read
from scripts import load_script

from specc import recipes
from specc.recipes import METHODS, Facts
from specc.recipes.axes import RULES, corpus_readers
from specc.recipes.axis_words import axis_words
from specc.recipes.systems import SYSTEMS

SCRIPT = ROOT / "docs" / "generate.py"


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    """Import docs/generate.py."""
    return load_script(SCRIPT)


def test_the_generated_parts_are_up_to_date(generate: ModuleType) -> None:
    """If this fails, run `python docs/generate.py`."""
    for page, text in generate.pages().items():
        assert page.read_text(encoding="utf-8") == text, f"{page.name} is out of date; run: python docs/generate.py"


@pytest.mark.process
def test_the_script_checks_without_writing() -> None:
    result = subprocess.run([sys.executable, SCRIPT, "--check"], capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_a_stale_page_is_noticed(
    generate: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- generated: part -->\nold\n<!-- end of part -->\nafter\n")
    monkeypatch.setattr(generate, "PARTS", {page: {"part": lambda: "new | \\d"}})
    monkeypatch.setattr(generate, "ROOT", tmp_path)
    monkeypatch.setattr(sys, "argv", ["generate.py", "--check"])
    assert generate.main() == 1 and "old" in page.read_text()
    monkeypatch.setattr(sys, "argv", ["generate.py"])
    assert generate.main() == 0
    assert page.read_text() == "before\n<!-- generated: part -->\nnew | \\d\n<!-- end of part -->\nafter\n"
    assert capsys.readouterr().out == "page.md is out of date\nupdated page.md\n"


def test_a_page_without_the_marks_is_an_error(generate: ModuleType) -> None:
    with pytest.raises(ValueError, match="the page has 0 parts 'part'"):
        generate.updated("no marks", {"part": "new"})


def test_every_system_has_a_row_with_its_state_and_its_recipes(generate: ModuleType) -> None:
    lines = generate.systems().splitlines()
    for system in SYSTEMS:
        row = lines[1 + system.number]
        assert row.startswith(f"| {system.number} | {system.name} | ") and f" | {system.state} | " in row
        assert all(f"[`{name}`](#{name})" in row for name in system.recipes) and system.missing in row


def test_every_method_has_a_row_and_a_section_with_its_parameters(generate: ModuleType) -> None:
    summary, details = generate.recipe_summary(), generate.recipe_details()
    for name, method in METHODS.items():
        assert f"[`{name}`](#{name})" in summary
        section = details.partition(f"### {name}\n")[2].partition("\n### ")[0]
        assert method.title in section and method.paper in section
        assert all(f"| `{p}` |" in section for p in method.parameters)


def test_every_word_of_every_axis_has_a_row_that_says_what_it_goes_with(generate: ModuleType) -> None:
    page = read(ROOT / "docs" / "recipes.md")
    for axis, words in axis_words(METHODS).items():
        part = page.partition(f"<!-- generated: {axis.split()[-1]} -->")[2].partition("<!-- end")[0]
        rows = [[cell.strip() for cell in row.split(" | ")] for row in part.splitlines()[3:]]
        assert [row[0].strip("| `") for row in rows] == [word.name for word in words]
        for row, word in zip(rows, words, strict=True):
            assert row[1].strip(" |") == word.help
            assert all(f"`{name}`" in "".join(row[2:]) for names in word.goes_with.values() for name in names)


def test_every_acceptance_rule_stands_in_the_table_for_readers(generate: ModuleType) -> None:
    part = read(ROOT / "docs" / "recipes.md").partition("## Acceptance rules")[2].partition("\n## ")[0]
    assert set(RULES) == {row.split("`")[1] for row in part.splitlines() if row.startswith("| `")}


def test_every_recipe_that_reads_a_corpus_stands_in_the_section_about_corpora() -> None:
    part = read(ROOT / "docs" / "recipes.md").partition("## A corpus")[2].partition("\n## ")[0]
    assert corpus_readers(METHODS) and set(re.findall(r"`([a-z0-9-]+)`", part)) & METHODS.keys() == set(
        corpus_readers(METHODS)
    )


@pytest.mark.parametrize("block", blocks(read(ROOT / "docs" / "recipes.md"), "toml"), ids=lambda block: block.title)
def test_the_recipe_files_of_the_page_are_recipes(block: CodeBlock, tmp_path: Path) -> None:
    file = tmp_path / block.title.removeprefix('title="').removesuffix('"')
    file.write_text(block.text, encoding="utf-8")
    own = recipes.method(str(file))
    assert own.name == file.stem and own.plan(own.settle({}), Facts(8, 500, "assistant-model" in own.needs)).verify
