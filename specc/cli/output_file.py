"""A file that a command writes at its end, checked at its beginning."""

from __future__ import annotations

import os
from pathlib import Path

from specc.runtime.errors import RecipeError


def check_file(file: Path, option: str) -> None:
    """Refuse a file that cannot be written, before work that takes long.

    Args:
        file: what will be written.
        option: the one that names it.

    Raises:
        RecipeError: it is no file, or its directory is not there, or nothing can be written there.
    """
    if not file.absolute().parent.is_dir():
        raise RecipeError(f"{option}: there is no directory {file.parent}; make it")
    if file.exists() and not file.is_file():
        raise RecipeError(f"{option}: {file} is not a file; name another one")
    if not os.access(file if file.exists() else file.absolute().parent, os.W_OK):
        raise RecipeError(f"{option}: {file} cannot be written; name another file")
