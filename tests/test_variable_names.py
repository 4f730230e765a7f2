"""Variables have nouns for names. CONTRIBUTING.md gives the reason."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("specc", "passes", "runtime", "tests", "benchmarks", "kernels")
# Words that say what happened to a thing, and not what it is.
PARTICIPLES = {
    *("asked", "begun", "caught", "chosen", "drawn", "found", "given", "gone", "grown", "held", "kept", "known"),
    *("loaded", "made", "mine", "ran", "said", "seen", "sent", "shown", "some", "spent", "taken", "told", "wanted"),
}


def participles(source: str) -> list[str]:
    """Return the assigned names and the parameters that are participles or pronouns."""
    nodes = list(ast.walk(ast.parse(source)))
    names = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    names |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    return sorted(names & PARTICIPLES)


@pytest.mark.parametrize("folder", FOLDERS)
def test_variables_are_nouns(folder: str) -> None:
    files = sorted((ROOT / folder).rglob("*.py"))
    names = {file.relative_to(ROOT).as_posix(): participles(file.read_text(encoding="utf-8")) for file in files}
    assert files and {file: words for file, words in names.items() if words} == {}


def test_the_check_sees_a_participle() -> None:
    """The control of the test above."""
    assert participles("def f(told: int) -> None:\n    found, x = told, 1") == ["found", "told"]
