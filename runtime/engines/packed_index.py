"""The index of an entry of packed weights: which files it has, and where each weight lies. It is believed if it fits.

An index has a digest over itself, and the stamp of each file. A file that was altered, replaced, linked or given to
another user does not fit, and neither does an offset that leads out of its file.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from ..disk_cache import LOCK, delete
from ..stamps import stamp, wait_until_settled
from .onnx_file import Location
from .prepacked import Prepacked

BIN, INDEX = "weights.bin", "index.json"
MOST_BYTES = 64 << 20  # of an index; one of a thousand weights has less than 1 MB


@dataclass
class Index:
    """The files and weights of one entry of the cache of packed weights.

    Attributes:
        key: what it was packed for.
        files: the stamp of each file, by name.
        weights: where each weight lies in weights.bin, by its place in the bundle, then by the operators that read it.
            Kernels of other operators may need other packed copies.
    """

    key: str
    files: dict[str, list[int]] = field(default_factory=dict)
    weights: dict[str, dict[str, Location]] = field(default_factory=dict)

    @classmethod
    def read(cls, directory: Path, key: str) -> Self | None:
        """Read an entry's index. Return None if it does not match the key, the files, or itself."""
        try:
            file = directory / INDEX
            if not _is_own_file(file) or file.stat().st_size > MOST_BYTES:
                return None
            data = json.loads(file.read_text(encoding="utf-8"))
            if data.pop("sha256") != _digest(data):
                return None
            index = cls(**data)
            return index if index.key == key and index._fits(directory) else None
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
            return None

    @classmethod
    def begin(cls, directory: Path, key: str) -> Self:
        """Empty an entry, but for its lock, and return an index of nothing."""
        for file in directory.iterdir():
            if file.name != LOCK:
                delete(file)
        return cls(key)

    def sweep(self, directory: Path) -> None:
        """Delete what a process that was killed left in an entry."""
        for file in directory.iterdir():
            if file.name not in self.files and file.name not in (INDEX, LOCK):
                delete(file)

    def write(self, directory: Path) -> None:
        """Write the index of the files that are now in an entry. From then on the entry holds them.

        Raises:
            OSError: there is no room, or the files have times in the future.
        """
        files = [f for f in directory.iterdir() if f.suffix in (".onnx", ".bin")]
        if not wait_until_settled(files):
            raise OSError("the file system's clock is ahead of this machine's")
        self.files = {f.name: stamp(f, follow_symlinks=False) for f in files}
        data = {"key": self.key, "files": self.files, "weights": self.weights}
        partial = directory / f"{INDEX}.partial"
        partial.write_text(json.dumps({**data, "sha256": _digest(data)}), encoding="utf-8")
        partial.replace(directory / INDEX)

    def _fits(self, directory: Path) -> bool:
        """Return whether the files are those of the index, and all weights lie inside weights.bin.

        Raises:
            OSError: a file is missing.
            ValueError: an offset is not a number.
        """
        for name, old in self.files.items():
            file = directory / name
            if file.parent != directory or not _is_own_file(file) or stamp(file, follow_symlinks=False) != old:
                return False
        size = self.files[BIN][0] if BIN in self.files else 0
        locations = [location for users in self.weights.values() for location in users.values()]
        return all(end <= size and start >= 0 for location in locations for start, end in _ranges(location))


def _ranges(location: Location) -> list[tuple[int, int]]:
    """Return where a weight and its packed copies begin and end in their file."""
    spans = [(int(location["offset"]), int(location["length"]))]
    for key, value in location.items():
        if key.startswith("prepacked"):
            spans += [(copy.offset, copy.length) for copy in Prepacked.parse(value).copies]
    return [(offset, offset + length) if length >= 0 else (-1, 0) for offset, length in spans]


def _is_own_file(file: Path) -> bool:
    """Return whether a path is a file, not a link, of this user.

    Raises:
        OSError: there is nothing.
    """
    status = file.lstat()
    return stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid()


def _digest(data: Any) -> str:
    """Return the SHA-256 of an index without its digest."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
