"""Every environment variable that specc reads, and the caches that it keeps on this machine.

    SPECC_CACHE               directory of the caches, or off. Default: specc in XDG_CACHE_HOME, or in ~/.cache
    SPECC_THREADS             threads of one engine, 1 to 1024. Default: the processors that this process may use
    SPECC_CUDA_GRAPHS         off runs engines on a GPU without captured graphs. Default: on
    SPECC_OPENVINO_PRECISION  f32 or bf16, in which OpenVINO's plug-in computes. Default: f32

Variables are read at each call, so a program may change them between two sessions. A cache can be deleted at any time.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from .errors import BackendError

UNUSED_SECONDS = 30 * 86400  # a cache directory that no process used for so long is deleted
PRECISIONS = ("f32", "bf16")
MOST_THREADS = 1024  # each takes memory, and no machine of today runs so many at once


class CacheOffError(OSError):
    """An attempt to use a cache while SPECC_CACHE is off."""


def cache_directory(kind: str, key: str) -> Path:
    """Create the directory of one cache, mark it as used, and delete its neighbours that nobody uses.

    Args:
        kind: what is cached; caches of one kind lie side by side.
        key: what the content depends on, as a file name.

    Raises:
        CacheOffError: SPECC_CACHE is off.
        OSError: the directory cannot be created or written.
    """
    root = os.environ.get("SPECC_CACHE")
    if root == "off":
        raise CacheOffError("SPECC_CACHE is off")
    base = Path(root) if root else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "specc"
    directory = base / kind / key
    directory.mkdir(parents=True, exist_ok=True)
    os.utime(directory)
    for neighbour in directory.parent.iterdir():
        if time.time() - neighbour.stat().st_mtime > UNUSED_SECONDS:
            shutil.rmtree(neighbour, ignore_errors=True)
    return directory


def threads() -> int:
    """Return the number of threads that one engine may take if the session names no number of its own.

    Raises:
        BackendError: SPECC_THREADS is not a whole number from 1 to MOST_THREADS.
    """
    count = os.environ.get("SPECC_THREADS") or str(len(os.sched_getaffinity(0)))
    if not (count.isascii() and count.isdecimal() and len(count) < 10 and 1 <= int(count) <= MOST_THREADS):
        raise BackendError(f"SPECC_THREADS is {count!r}; give a whole number from 1 to {MOST_THREADS}")
    return int(count)


def cuda_graphs() -> bool:
    """Return whether an engine on a GPU may capture its launches as a graph."""
    return os.environ.get("SPECC_CUDA_GRAPHS") != "off"


def openvino_precision() -> str:
    """Return the type in which OpenVINO's plug-in computes.

    Raises:
        BackendError: SPECC_OPENVINO_PRECISION is not f32 or bf16.
    """
    precision = os.environ.get("SPECC_OPENVINO_PRECISION", "f32")
    if precision not in PRECISIONS:
        raise BackendError(f"SPECC_OPENVINO_PRECISION is {precision!r}; give {' or '.join(PRECISIONS)}")
    return precision


def stamp(file: Path) -> list[int]:
    """Return a file's size in bytes and its time of last change in ns: a change shows without reading the file."""
    stat = file.stat()
    return [stat.st_size, stat.st_mtime_ns]
