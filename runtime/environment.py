"""What is kept on this machine between runs: caches that can be lost at any time.

SPECC_CACHE names their directory, by default specc in the user's cache directory; SPECC_CACHE=off keeps nothing.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from .errors import BackendError

FORGET = 30 * 86400  # seconds after which what was not used goes


def cache_directory(kind: str, key: str) -> Path:
    """The directory of one cache, made if need be. Raises OSError where there is none to be had."""
    root = os.environ.get("SPECC_CACHE")
    if root == "off":
        raise OSError("SPECC_CACHE is off")
    base = Path(root) if root else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "specc"
    directory = base / kind / key
    directory.mkdir(parents=True, exist_ok=True)
    os.utime(directory)
    for old in directory.parent.iterdir():
        if time.time() - old.stat().st_mtime > FORGET:
            shutil.rmtree(old, ignore_errors=True)
    return directory


def threads() -> int:
    """SPECC_THREADS, or the processors that this process may use. Raises BackendError."""
    wanted = os.environ.get("SPECC_THREADS") or str(len(os.sched_getaffinity(0)))
    if not wanted.isdecimal() or wanted == "0":
        raise BackendError(f"SPECC_THREADS is {wanted!r}; give a whole number, 1 or more")
    return int(wanted)


def stamp(file: Path) -> list[int]:
    """Size and time of last change: what tells a file from an altered one without reading it."""
    stat = file.stat()
    return [stat.st_size, stat.st_mtime_ns]
