"""The verb `test`: its table, its verdicts and its exit status."""

from __future__ import annotations

from pathlib import Path

import pytest
from shell import copied, edit_golden, fits, specc

from specc.cli.test import verdicts


@pytest.mark.parametrize(
    ("counts", "text"),
    [
        ((3, 0, 0), "3 identical"),
        ((2, 1, 0), "2 identical, 1 near-tie"),
        ((0, 0, 2), "2 diverged"),
        ((1, 0, 1, 1), "1 identical, 1 different, as this recipe may be, 1 diverged"),
        ((0, 0, 0), "0 identical"),
    ],
)
def test_verdicts_name_what_there_was(counts: tuple[int, ...], text: str) -> None:
    assert verdicts(*counts).plain == text


@pytest.mark.model
class TestVerb:
    @pytest.mark.parametrize("columns", [80, 140])
    def test_the_table_fits(self, columns: int, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COLUMNS", str(columns))
        fits(specc("test", bundle).out, columns)

    def test_a_divergence_is_drawn_and_is_status_1(self, bundle: Path, tmp_path: Path) -> None:
        def change(cases: list[dict[str, list[int]]]) -> None:
            cases[0]["token_ids"][2] ^= 1

        result = specc("test", edit_golden(copied(bundle, tmp_path), change), "--recipe", "plain")
        assert result.status == 1
        assert "1 diverged" in result.out and "divergence" in result.out

    def test_the_json_is_printed_whatever_the_verdict(self, bundle: Path) -> None:
        report = specc("test", bundle, "--recipe", "plain", "--json").json
        assert report["diverged"] == 0 and [row["recipe"] for row in report["recipes"]] == ["plain"]

    def test_a_junit_report_is_written_beside_the_table(self, bundle: Path, tmp_path: Path) -> None:
        file = tmp_path / "report.xml"
        assert specc("test", bundle, "--recipe", "plain", "--junit", file).status == 0
        assert "<testsuites" in file.read_text(encoding="utf-8")
