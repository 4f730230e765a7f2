"""Tuned numbers: each field of a policy says its unit and how to measure it anew."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import specc

FILES = [Path(specc.__file__).parent / folder / "policy.py" for folder in ("tuning", "bench")]


def policies() -> Iterator[tuple[str, ast.ClassDef, list[str]]]:
    for file in FILES:
        text = file.read_text(encoding="utf-8")
        for node in ast.parse(text).body:
            if isinstance(node, ast.ClassDef):
                yield node.name, node, text.splitlines()


@pytest.mark.parametrize(("node", "lines"), [pytest.param(node, lines, id=name) for name, node, lines in policies()])
def test_every_field_has_a_line_of_its_own_and_a_reason(node: ast.ClassDef, lines: list[str]) -> None:
    fields = [item for item in node.body if isinstance(item, ast.AnnAssign)]
    assert fields
    anew = "Anew" in (ast.get_docstring(node) or "")
    for field in fields:
        above = []
        for line in reversed(lines[: field.lineno - 1]):
            if not line.strip().startswith("#"):
                break
            above.append(line)
        comment = " ".join(above)
        assert comment, f"{node.name}.{ast.unparse(field.target)} has no comment"
        assert anew or "Anew" in comment, f"{node.name}.{ast.unparse(field.target)} does not say how to measure it anew"
