"""A file's stamp: numbers of the file system that change when the file changes, read without reading the file."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

TICK_NS = 20_000_000  # Linux counts times of change in steps of 1 to 10 ms, so two changes may have one time.
PATIENCE_NS = 1_000_000_000  # A file server's clock that is further ahead of ours is not waited for.


def stamp(file: Path, follow_symlinks: bool = True) -> list[int]:
    """Return a file's size in bytes, its times of change in ns (content, then inode), and its inode.

    A program can set the first time (mtime) back. It cannot set the second one (ctime) without changing the clock.

    Args:
        file: the file.
        follow_symlinks: whether the stamp of a link is that of the file that it leads to.

    Raises:
        OSError: the file is not there.
    """
    stat = file.stat(follow_symlinks=follow_symlinks)
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def wait_until_settled(files: Iterable[Path]) -> bool:
    """Wait until a new change of one of the files would get a new time, and so a new stamp.

    Returns:
        False if the clock of the file system is too far ahead: a stamp says nothing then.

    Raises:
        OSError: a file is not there.
    """
    newest = max((file.stat().st_ctime_ns for file in files), default=0)
    wait = newest + TICK_NS - time.time_ns()
    if wait > PATIENCE_NS:
        return False
    time.sleep(max(0, wait) / 1e9)
    return True
