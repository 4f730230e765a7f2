"""Tables keep words whole, at every width of the terminal."""

from __future__ import annotations

import pytest
from rich.measure import Measurement
from rich.table import Table

from specc.cli import console
from specc.cli.whole_table import LONGEST_WORD, column_widths
from specc.recipes import METHODS

NAMES = ("plain", "speculative-streaming num_speculative_tokens=3", "lexical-units-unverified confidence=0.25")
COLUMNS = (20, 40, 80, 200)


def drawn(table: Table, columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setenv("COLUMNS", str(columns))
    console.show(table)
    return capsys.readouterr().out


def bench_like(table: Table) -> Table:
    """Fill a table of names and numbers, as `specc bench --vary` draws it."""
    for name in NAMES:
        table.add_row(name, *["100.0"] * 8)
    return table


@pytest.mark.parametrize("columns", COLUMNS)
def test_a_name_stands_whole_on_one_line_beside_many_numbers(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = drawn(bench_like(console.table("recipe", *[("x plain", "right")] * 8)), columns, monkeypatch, capsys)
    assert all(any(line.startswith(name) and line.endswith("100.0") for line in lines.splitlines()) for name in NAMES)
    assert "…" not in lines


def test_a_table_of_rich_cuts_such_names_so_the_test_can_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = Table("recipe", *["x plain"] * 8)
    for column in table.columns:
        column.no_wrap = True
    assert "…" in drawn(bench_like(table), 80, monkeypatch, capsys)


@pytest.mark.parametrize("columns", COLUMNS)
def test_words_of_a_text_stay_whole_and_the_text_wraps(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table, long = console.table("recipe", "drafter", "help"), "words " * 40
    for name, method in METHODS.items():
        table.add_row(name, method.drafter, long)
    out = drawn(table, columns, monkeypatch, capsys)
    words = set(out.split())
    assert set(METHODS) <= words and {m.drafter for m in METHODS.values()} <= words
    assert columns < 80 or max(map(len, out.splitlines())) <= columns


def test_a_path_that_is_longer_than_any_name_breaks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    table = console.table("name", "file")
    table.add_row("a", "x" * 200)
    lines = drawn(table, 80, monkeypatch, capsys).splitlines()
    assert max(map(len, lines)) <= 80 and sum(line.count("x") for line in lines) == 200


@pytest.mark.parametrize(
    ("room", "widths"), [(100, [10, 60]), (50, [10, 40]), (15, [10, 8]), (1, [10, 8]), (-5, [10, 8])]
)
def test_the_widest_column_shrinks_first_and_none_below_its_words(room: int, widths: list[int]) -> None:
    assert column_widths([Measurement(10, 10), Measurement(8, 60)], room) == widths
    assert max(map(len, METHODS)) < LONGEST_WORD
