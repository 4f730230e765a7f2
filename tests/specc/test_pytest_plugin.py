"""The pytest plugin, in a process of its own, as a user's repository runs it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from shell import copied, edit_golden

FROZEN = Path(__file__).parents[1] / "bundles" / "schema-2"
pytestmark = pytest.mark.process


def run(directory: Path, *argv: object) -> subprocess.CompletedProcess[str]:
    """Run pytest in an empty directory."""
    words = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *map(str, argv)]
    return subprocess.run(words, cwd=directory, capture_output=True, text=True, timeout=100)


def test_each_recipe_and_case_is_a_test(tmp_path: Path) -> None:
    result = run(tmp_path, "-vv", "--specc-bundle", FROZEN, "--specc-recipe", "plain", "--specc-recipe", "lookahead")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "8 passed" in result.stdout
    assert "manifest.json::lookahead[3] PASSED" in result.stdout


def test_a_divergence_fails_with_one_line_that_says_where(tmp_path: Path) -> None:
    def change(cases: list[dict[str, list[int]]]) -> None:
        cases[1]["token_ids"][3] ^= 1

    bundle = edit_golden(copied(FROZEN, tmp_path), change)
    result = run(tmp_path, "-n", "2", "--specc-bundle", bundle, "--specc-recipe", "prompt-lookup", "-m", "specc")
    assert result.returncode == 1
    assert "1 failed, 3 passed" in result.stdout
    assert "token 3 of 32 is " in result.stdout and "by engine " in result.stdout
    assert "Traceback" not in result.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--specc-bundle", "nothing"], "--specc-bundle nothing: there is no bundle"),
        (["--specc-bundle", FROZEN, "--specc-recipe", "plai"], "did you mean 'plain'?"),
    ],
)
def test_bad_input_is_named(options: list[object], message: str, tmp_path: Path) -> None:
    result = run(tmp_path, *options)
    assert result.returncode not in (0, 1)
    assert message in result.stdout + result.stderr


def test_a_changed_bundle_is_an_error(tmp_path: Path) -> None:
    bundle = copied(FROZEN, tmp_path)
    (bundle / "golden.jsonl").write_text("", encoding="utf-8")
    result = run(tmp_path, "--specc-bundle", bundle)
    assert result.returncode == 2
    assert "golden.jsonl" in result.stdout
