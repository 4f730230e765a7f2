"""The tuned numbers that recipes start from: each says its unit, and how it is measured anew."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from specc.recipes import defaults

ROOT = Path(__file__).parents[3]
SOURCE = Path(defaults.__file__).read_text(encoding="utf-8")
LOG = (ROOT / "benchmarks" / "LOG.md").read_text(encoding="utf-8")


def comments() -> dict[str, str]:
    """Return the comment above each field of a policy."""
    lines, texts = SOURCE.splitlines(), {}
    for policy in (node for node in ast.parse(SOURCE).body if isinstance(node, ast.ClassDef)):
        for field in (node for node in policy.body if isinstance(node, ast.AnnAssign)):
            above: list[str] = []
            while lines[field.lineno - 2 - len(above)].lstrip().startswith("#"):
                above.insert(0, lines[field.lineno - 2 - len(above)].strip().removeprefix("# "))
            texts[f"{policy.name}.{ast.unparse(field.target)}"] = " ".join(above)
    return texts


COMMENTS = comments()


def test_every_number_is_a_field() -> None:
    assert len(COMMENTS) == sum(len(vars(policy)) for policy in (defaults.LENGTHS, defaults.TREES, defaults.WIDTHS))


@pytest.mark.parametrize("field", COMMENTS)
def test_a_number_says_its_unit_and_how_it_is_measured_anew(field: str) -> None:
    unit, _, anew = COMMENTS[field].partition(" Anew: ")
    assert re.match(r"(Tokens?|Nodes|Slots|Levels|Children|Columns|N-grams|Share|Probability) ", unit), unit
    assert re.match(r"(tune|trees|heldout|steps|as for \w+|`acceptance` in|the curve of)\b|`", anew), anew


@pytest.mark.parametrize("field", COMMENTS)
def test_what_a_comment_quotes_stands_in_the_log(field: str) -> None:
    for quote in re.findall(r'"([^"]+)" in the log', COMMENTS[field]):
        assert quote in LOG


def test_the_commands_of_the_head_exist() -> None:
    scripts = re.findall(r"benchmarks/\w+\.py", SOURCE)
    assert scripts and all((ROOT / script).is_file() for script in scripts)
