"""Prepare what `mkdocs build` reads: one tree of links in which the package specc is whole.

passes/ and runtime/ lie beside specc/ and are installed under it. mkdocstrings reads files without importing them, so
it needs a folder that looks like the installed package.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
TREE = ROOT / "build" / "docs" / "source"  # mkdocs.yml gives this path to mkdocstrings


def on_startup(command: str, dirty: bool, **_: Any) -> None:
    """Link the folders into the tree, before mkdocs starts its plugins."""
    shutil.rmtree(TREE, ignore_errors=True)
    package = TREE / "specc"
    package.mkdir(parents=True)
    for entry in (*(ROOT / "specc").iterdir(), ROOT / "passes", ROOT / "runtime"):
        (package / entry.name).symlink_to(entry)
