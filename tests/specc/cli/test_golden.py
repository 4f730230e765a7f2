"""The verb `golden`: what it prints, and its exit status."""

from __future__ import annotations

from pathlib import Path

from shell import copied, edit_golden, refused, specc

FROZEN = Path(__file__).parents[2] / "bundles" / "schema-2"


def prompts_file(directory: Path) -> Path:
    file = directory / "more.jsonl"
    file.write_text('{"prompt": "two words"}\n', encoding="utf-8")
    return file


def test_add_prints_how_many_cases_there_are(tmp_path: Path) -> None:
    bundle = copied(FROZEN, tmp_path)
    assert specc("golden", "add", bundle, "--prompts", prompts_file(tmp_path), "--json").json["cases"] == 5
    assert "already; leave it out" in refused("golden", "add", bundle, "--prompts", prompts_file(tmp_path))


def test_equal_bundles_are_status_0(tmp_path: Path) -> None:
    result = specc("golden", "diff", FROZEN, copied(FROZEN, tmp_path))
    assert result.status == 0
    assert result.out.strip() == "4 prompts are in both files, 4 of them with equal tokens"


def test_other_tokens_and_other_prompts_are_status_1(tmp_path: Path) -> None:
    def change(cases: list[dict[str, list[int]]]) -> None:
        cases[1]["token_ids"][3] ^= 1
        cases.pop(0)

    bundle = edit_golden(copied(FROZEN, tmp_path), change)
    result = specc("golden", "diff", FROZEN, bundle)
    assert result.status == 1
    assert "diverged" in result.out and f"only in {FROZEN}" in result.out.replace("\n", "")
    backwards = specc("golden", "diff", bundle, FROZEN, "--json")
    assert backwards.status == 1 and '"new": [' in backwards.out


def test_a_file_that_is_missing_is_one_line(tmp_path: Path) -> None:
    assert "name a bundle, or a golden.jsonl" in refused("golden", "diff", FROZEN, tmp_path / "nothing")
