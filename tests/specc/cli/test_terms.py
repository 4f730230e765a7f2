"""The words that the tables of several verbs share."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from shell import specc

from specc.cli.terms import LENGTH_LINE, LENGTH_TITLE

ROOT = Path(__file__).parents[3]


def test_one_figure_has_one_name_in_the_documentation_and_on_the_page_of_a_benchmark() -> None:
    """`length: mean acceptance length` is that name; `acceptance length` alone is another."""
    pages = [*ROOT.glob("docs/*.md"), ROOT / "README.md", ROOT / "specc/cli/bench_page.html.j2"]
    for page in pages:
        others = re.findall(r"(?<!mean )acceptance length|speed-up +acceptance", " ".join(page.read_text().split()))
        assert others == [], page


@pytest.mark.model
@pytest.mark.parametrize("argv", [("show", "--all"), ("test",), ("bench", "--rounds", 1, "--max-new-tokens", 4)])
def test_each_table_with_the_figure_explains_it_once(argv: tuple[object, ...], bundle: Path) -> None:
    verb, *options = argv
    out = specc(verb, bundle, *options).out
    assert re.search(rf"tokens/s .*\b{LENGTH_TITLE}\b", out)
    assert out.count(LENGTH_LINE) == 1
