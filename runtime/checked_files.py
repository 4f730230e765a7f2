"""The files of a bundle that this machine has checked already, and need not be read again."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from .bundle import Bundle, sha256
from .disk_cache import cache_directory
from .errors import BundleError
from .json_codec import to_json
from .stamps import stamp, wait_until_settled

Stamps = dict[str, list[int]]


class CheckedFiles:
    """The files of a bundle as a session checked them.

    Attributes:
        bundle: the bundle.
        stamps: the stamp that each file had when it was checked, by name.
    """

    def __init__(self, bundle: Bundle, stamps: Stamps) -> None:
        self.bundle, self.stamps = bundle, stamps

    def check_again(self) -> None:
        """Check that the files are those that were checked. A file with another stamp is read.

        Raises:
            BundleError: one has other content or is gone, as when the bundle was overwritten.
        """
        try:
            stamps = {name: stamp(self.bundle.file(name)) for name in self.stamps}
            if stamps != self.stamps:
                check_unchanged(self.bundle, [name for name in stamps if stamps[name] != self.stamps[name]])
        except OSError:
            raise _replaced(self.bundle) from None
        self.stamps = stamps


def check_unchanged(bundle: Bundle, names: Iterable[str]) -> None:
    """Compare the SHA-256 of files with the manifest. A process reads a file once, unless its stamp changes.

    Raises:
        BundleError: one has other content or is gone.
    """
    for name in names:
        file = bundle.file(name)
        try:
            content = _sha256_at(file, *stamp(file))
        except OSError:
            raise _replaced(bundle) from None
        if content != bundle.manifest.files[name].sha256:
            raise _replaced(bundle)


@lru_cache(maxsize=256)
def _sha256_at(file: Path, *stamp: int) -> str:
    """Return the SHA-256 of a file that has this stamp."""
    return sha256(file)


def _replaced(bundle: Bundle) -> BundleError:
    """Make the error that says that other files lie where a session's files lay."""
    return BundleError(f"the bundle at {bundle.path} was replaced while this session was open; load it again")


def check_once(bundle: Bundle) -> CheckedFiles:
    """Compare the SHA-256 of all files, but read a file only if it changed since this machine last checked it.

    A cache keeps each file's stamp: size, both times of change, and inode. Without a cache every file is read.

    Returns:
        The files, to check again later.

    Raises:
        BundleError: naming the first file that differs.
    """
    files = [bundle.file(name) for name in bundle.manifest.files]
    try:
        settled = wait_until_settled(files)
        stamps = {name: stamp(bundle.file(name)) for name in bundle.manifest.files}
    except OSError as e:
        raise BundleError(f"{e.filename} is missing; compile the bundle again") from e
    record = _record(bundle) if settled else None
    earlier = _read(record) if record is not None else {}
    if changes := [name for name in stamps if earlier.get(name) != stamps[name]]:
        bundle.check(*changes)
        if record is not None:
            _write(record, stamps)
    return CheckedFiles(bundle, stamps)


def _record(bundle: Bundle) -> Path | None:
    """Return the file that keeps the stamps of a bundle; None without a cache."""
    text = json.dumps(to_json(bundle.manifest), sort_keys=True)
    key = hashlib.sha256(f"{bundle.path.resolve()} {text}".encode()).hexdigest()[:32]
    try:
        return cache_directory("checked", key) / "stamps.json"
    except OSError:
        return None


def _read(record: Path) -> Stamps:
    """Return the stamps that a file keeps; none if it is not such a file, or a link."""
    stamps: Any = None
    with contextlib.suppress(OSError, ValueError, RecursionError):
        handle = os.open(record, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(handle, encoding="utf-8") as file:
            if os.fstat(handle).st_uid == os.geteuid():
                stamps = json.load(file)
    return stamps if isinstance(stamps, dict) else {}


def _write(record: Path, stamps: Stamps) -> None:
    """Write the stamps whole or not at all. Without room nothing is kept."""
    partial = record.with_name(f"{secrets.token_hex(4)}.partial")
    for remnant in record.parent.glob("*.partial"):  # Of a process that was killed, or that then keeps nothing.
        remnant.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        try:
            partial.write_text(json.dumps(stamps), encoding="utf-8")
            partial.replace(record)
        finally:
            partial.unlink(missing_ok=True)
