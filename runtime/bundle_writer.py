"""A bundle is written whole or not at all, also if the process is killed."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from glob import escape
from pathlib import Path

from .bundle import MANIFEST, digest, sha256
from .errors import BundleError
from .json_codec import to_json
from .manifest import FileSpec, Manifest

PARTIAL = ".partial"  # ends the name of a directory or file that is not complete yet
OLD = ".old"  # ends the name of a bundle that is being replaced


def write_manifest(path: Path, manifest: Manifest) -> Manifest:
    """Write `manifest.json` with the size and SHA-256 of each file that is now in `path`.

    Args:
        path: the bundle's directory.
        manifest: a file that its `files` has already is not read again.

    Returns:
        The manifest with all files.
    """
    partial = path / f"{MANIFEST}{PARTIAL}"
    partial.unlink(missing_ok=True)  # A process that was killed while it wrote may have left one.
    names = sorted(f.relative_to(path).as_posix() for f in path.rglob("*") if f.is_file() and f.name != MANIFEST)
    listed = manifest.files
    files = {n: listed.get(n) or FileSpec((path / n).stat().st_size, sha256(path / n)) for n in names}
    manifest = replace(manifest, files=files)
    data = to_json(manifest)
    text = json.dumps({**data, "manifest_sha256": digest(data)}, indent=1) + "\n"
    partial.write_text(text, encoding="utf-8")
    partial.replace(path / MANIFEST)
    return manifest


@contextlib.contextmanager
def written_whole(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """Yield a directory to fill. It becomes `path` when the block ends, and vanishes if the block fails.

    If the process is killed, the directory stays beside `path` until the next call for that `path` removes it.

    Args:
        path: where the bundle will be.
        overwrite: replace a bundle that is there. Nothing but a bundle is ever replaced.

    Raises:
        BundleError: `path` exists and may not be replaced, or its parent cannot be written.
    """
    _clear_away(path)
    if path.exists() and not overwrite:
        raise BundleError(f"{path} exists; choose another output, or replace it with --overwrite")
    if path.exists() and not (path / MANIFEST).exists():
        raise BundleError(f"{path} exists and is not a bundle; choose another output")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise BundleError(f"{path.parent} cannot hold a bundle ({e.strerror}); choose another output") from e
    directory = Path(tempfile.mkdtemp(prefix=".specc-", dir=path.parent))
    with _locked(directory):  # The lock comes first: under its final name another process may clear it away.
        partial = directory.rename(path.with_name(f".{path.name}.{directory.name[-8:]}{PARTIAL}"))
        try:
            yield partial
            for written in (partial, *partial.rglob("*")):  # Libraries and mkdtemp let only their own user read.
                written.chmod((0o777 if written.is_dir() else 0o666) & ~_umask())
            _replace(path, partial)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[bool]:
    """Lock a directory and yield whether that worked.

    It fails if another process has the lock, and on file systems without locks. The operating system releases the lock
    when the block or the process ends, also if the process is killed.
    """
    handle, free = os.open(directory, os.O_RDONLY), False
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        yield free
    finally:
        os.close(handle)


def _clear_away(path: Path) -> None:
    """Remove what killed processes left while they wrote `path`; put a bundle back that one was about to replace."""
    for remnant in path.parent.glob(f".{escape(path.name)}.????????{PARTIAL}*"):
        partial = remnant.with_name(remnant.name.removesuffix(OLD))
        with contextlib.suppress(OSError), _locked(partial if partial.exists() else remnant) as free:
            if free:
                old = partial.with_name(partial.name + OLD)
                if old.exists() and not path.exists():
                    old.rename(path)
                shutil.rmtree(old, ignore_errors=True)
                shutil.rmtree(partial, ignore_errors=True)


def _replace(path: Path, new: Path) -> None:
    """Rename `new` to `path`. If that fails, what was at `path` is there again."""
    old = new.with_name(new.name + OLD)
    try:
        if path.exists():
            path.rename(old)
        new.rename(path)
    except BaseException:
        if old.exists() and not path.exists():
            old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _umask() -> int:
    """Return the process's umask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
