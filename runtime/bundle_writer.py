"""A bundle is written whole or not at all, also if the process is killed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
from collections.abc import Iterator
from dataclasses import replace
from glob import escape
from pathlib import Path

from .bundle import MANIFEST, Bundle, open_bundle, sha256
from .disk_cache import is_at
from .errors import BundleError, first_line
from .manifest import SCHEMA, FileSpec, Manifest
from .manifest_file import manifest_text

PARTIAL = ".partial"  # ends the name of a directory or file that is not complete yet
OLD = ".old"  # ends the name of a bundle that is being replaced


def write_manifest(path: Path, manifest: Manifest) -> Manifest:
    """Write `manifest.json` with the size and SHA-256 of each file that is now in `path`.

    Readers see the old manifest or the new one, also if several processes write at once.

    Args:
        path: the bundle's directory.
        manifest: a file that its `files` has already is not read again.

    Returns:
        The manifest with all files, in the newest schema.

    Raises:
        BundleError: the directory cannot be written. The old manifest stays.
    """
    names = sorted(f.relative_to(path).as_posix() for f in path.rglob("*") if f.is_file() and not _is_manifest(f.name))
    listed = manifest.files
    files = {n: listed.get(n) or FileSpec((path / n).stat().st_size, sha256(path / n)) for n in names}
    manifest = replace(manifest, schema=SCHEMA, files=files)
    with _new_manifest(path, manifest_text(manifest)) as partial:
        partial.replace(path / MANIFEST)
    return manifest


def replace_manifest(bundle: Bundle, manifest: Manifest) -> None:
    """Write another manifest into a bundle whose files stay.

    Raises:
        BundleError: the bundle was changed after it was opened, or cannot be written. Nothing is written then.
    """
    try:
        unchanged = open_bundle(bundle.path).manifest == bundle.manifest
    except BundleError:
        unchanged = False
    if not unchanged:
        raise BundleError(f"the bundle at {bundle.path} was changed while this process worked on it; start again")
    write_manifest(bundle.path, manifest)


def check_writable(path: Path) -> None:
    """Check that a bundle's manifest can be replaced by one of twice its size. Call it before work that takes long.

    Raises:
        BundleError: there is no room, or no right to write.
    """
    with _new_manifest(path, " " * (2 * (path / MANIFEST).stat().st_size)):
        pass


@contextlib.contextmanager
def _new_manifest(path: Path, text: str) -> Iterator[Path]:
    """Yield a new file beside a bundle's manifest, with a name that no other process uses. It is gone afterwards.

    Files of processes that were killed are removed.

    Raises:
        BundleError: the file cannot be written.
    """
    try:
        for remnant in path.glob(f"{MANIFEST}*{PARTIAL}"):
            with contextlib.suppress(OSError), _locked(remnant) as free:
                if free:
                    remnant.unlink()
        locked = False
        while not locked:
            partial = path / f"{MANIFEST}.{secrets.token_hex(4)}{PARTIAL}"
            try:
                with partial.open("x", encoding="utf-8") as file:
                    if locked := _lock_new(file.fileno(), partial):
                        file.write(text)
                        file.flush()
                        yield partial
            finally:
                partial.unlink(missing_ok=True)
    except OSError as e:
        raise BundleError(
            f"{path / MANIFEST} cannot be written ({first_line(e)}); make room, or the directory writable"
        ) from e


def _is_manifest(name: str) -> bool:
    """Return whether a file name is that of a manifest, or of one that a process writes or left."""
    return name == MANIFEST or (name.startswith(f"{MANIFEST}.") and name.endswith(PARTIAL))


@contextlib.contextmanager
def written_whole(path: Path, overwrite: bool = False, mark: str = MANIFEST) -> Iterator[Path]:
    """Yield a directory to fill. It becomes `path` when the block ends, and vanishes if the block fails.

    If the process is killed, the directory stays beside `path` until the next call for that `path` removes it.

    Args:
        path: where the bundle will be. If that is a symbolic link, it stays, and the bundle is where it leads.
        overwrite: replace a bundle that is there. Nothing but a bundle is ever replaced.
        mark: the file by which a directory is known as one that may be replaced.

    Raises:
        BundleError: `path` exists and may not be replaced, its parent cannot be written, or another process writes
            `path` at this moment. `path` may also begin to exist while the block runs.
    """
    if path.is_symlink():
        path = path.resolve()
    _clear_away(path)
    if any(map(_is_in_use, _partials(path))):
        raise BundleError(f"another process writes {path} now; wait for it, or choose another output")
    if path.exists() and not overwrite:
        raise BundleError(f"{path} exists; choose another output, or replace it with --overwrite")
    if path.exists() and not (path / mark).exists():
        kind = "is not a bundle" if mark == MANIFEST else f"has no {mark}"
        raise BundleError(f"{path} exists and {kind}; choose another output")
    with contextlib.ExitStack() as stack:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = stack.enter_context(_partial_directory(path))
        except OSError as e:
            raise BundleError(f"{path.parent} cannot hold a bundle ({e.strerror}); choose another output") from e
        try:
            yield partial
            for written in (partial, *partial.rglob("*")):  # Libraries and mkdir let only their own user read.
                written.chmod((0o777 if written.is_dir() else 0o666) & ~_umask())
            _replace(path, partial, overwrite)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def _partial_directory(path: Path) -> Iterator[Path]:
    """Make a directory beside `path`, and keep it locked, so that no other process clears it away.

    Raises:
        OSError: it cannot be made.
    """
    with contextlib.ExitStack() as stack:
        while True:
            partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL}")
            partial.mkdir(mode=0o700)
            with contextlib.suppress(FileNotFoundError):
                handle = os.open(partial, os.O_RDONLY)
                stack.callback(os.close, handle)
                if _lock_new(handle, partial):
                    break
        yield partial


def _lock_new(handle: int, path: Path) -> bool:
    """Lock a file or directory that this process has just made.

    Returns:
        False if another process clears it away, as what a killed process left. Then another one must be made.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # The file system has no locks, so nobody clears anything away.
        return True
    return is_at(handle, path)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Lock a directory or a file and yield whether that worked.

    It fails if another process has the lock, and on file systems without locks. The operating system releases the lock
    when the block or the process ends, also if the process is killed.
    """
    handle, free = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), False
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        yield free
    finally:
        os.close(handle)


def _partials(path: Path) -> Iterator[Path]:
    """Yield the directories beside `path` that processes fill for it, or that were killed while they did."""
    return path.parent.glob(f".{escape(path.name)}.????????{PARTIAL}*")


def _is_in_use(path: Path) -> bool:
    """Return whether a living process has locked a directory. On a file system without locks nobody knows."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False


def _clear_away(path: Path) -> None:
    """Remove what killed processes left while they wrote `path`; put a bundle back that one was about to replace."""
    for remnant in _partials(path):
        partial = remnant.with_name(remnant.name.removesuffix(OLD))
        with contextlib.suppress(OSError), _locked(partial if partial.exists() else remnant) as free:
            if free:
                old = partial.with_name(partial.name + OLD)
                if old.exists() and not path.exists():
                    old.rename(path)
                shutil.rmtree(old, ignore_errors=True)
                shutil.rmtree(partial, ignore_errors=True)


def _replace(path: Path, new: Path, overwrite: bool) -> None:
    """Rename `new` to `path`. If that fails, what was at `path` is there again.

    Raises:
        BundleError: another process wrote `path` in the meantime, and it may not be replaced.
    """
    old = new.with_name(new.name + OLD)
    try:
        if overwrite and path.exists():
            path.rename(old)
        new.rename(path)  # It fails if a directory that is not empty is there.
    except BaseException as e:
        if old.exists() and not path.exists():
            old.rename(path)
        if isinstance(e, OSError) and e.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise BundleError(f"another process wrote {path} in the meantime; choose another output") from e
        raise
    shutil.rmtree(old, ignore_errors=True)


def link(source: Path, file: Path) -> None:
    """Give a file a second name, or copy it where the file system has no links. What a symbolic link names is taken."""
    source = source.resolve()
    try:
        os.link(source, file)
    except OSError:
        shutil.copy2(source, file)


def _umask() -> int:
    """Return the process's umask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
