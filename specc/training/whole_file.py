"""Write a file of a training whole or not at all."""

from __future__ import annotations

import os
from pathlib import Path

from specc.runtime.errors import HeadError


def write_whole(file: Path, text: str) -> None:
    """Write a text file, and make the directory that it is in. A reader finds the whole text, or the file of before.

    Raises:
        HeadError: it cannot be written.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(file.name + ".partial")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, file)
    except OSError as e:
        raise HeadError(f"cannot write {file}: {e.strerror}; free some space, or choose another place") from e
    finally:
        partial.unlink(missing_ok=True)
