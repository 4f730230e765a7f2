"""Files stay small enough to be read at once."""

from __future__ import annotations

from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[1]
LINES = {
    file.relative_to(ROOT).as_posix(): len(file.read_text(encoding="utf-8").splitlines())
    for folder in ("specc", "passes", "runtime")
    for file in (ROOT / folder).rglob("*.py")
}


def test_no_file_is_long() -> None:
    assert {name: lines for name, lines in LINES.items() if lines > 400} == {}


def test_most_files_are_short() -> None:
    """Half of them fit on two screens, with the arguments of their functions described."""
    assert len(LINES) > 100 and median(LINES.values()) <= 110
