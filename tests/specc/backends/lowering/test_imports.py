"""Who may import the files of `lowering/`."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[4]
LOWERING = "specc.backends.lowering"
SHARED = {f"{LOWERING}.emit", f"{LOWERING}.masks"}
FILES = sorted(file for folder in ("specc", "passes", "runtime") for file in (ROOT / folder).rglob("*.py"))


def imported(file: Path) -> set[str]:
    """Return the modules of `lowering/` that a file imports."""
    modules: set[str] = set()
    text = file.read_text(encoding="utf-8")
    if "lowering" not in text:  # To parse every file takes a second.
        return modules
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom) and node.module == LOWERING:
            modules |= {f"{LOWERING}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            modules.add(node.module)
        elif isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
    return {module for module in modules if module.startswith(LOWERING)}


def refused(file: Path) -> set[str]:
    """Return the modules of `lowering/` that a file imports and must not."""
    folder = file.parent.relative_to(ROOT).as_posix()
    if file.name == "standard_onnx.py":
        return set()  # It writes what two lowerings would have written.
    if folder == "specc/backends":
        return imported(file) & SHARED  # backends take whole lowerings
    return imported(file) - (SHARED if folder == "specc/backends/lowering" else set())


def test_files_of_lowering_share_emit_and_masks_and_only_backends_import_the_others() -> None:
    assert {file: modules for file in FILES if (modules := refused(file))} == {}


def test_the_check_sees_an_import() -> None:
    """The control of the test above."""
    assert f"{LOWERING}.any_width" in imported(ROOT / "specc/backends/onnx.py")
    assert imported(ROOT / "specc/backends/lowering/onnx_fast.py") <= SHARED
