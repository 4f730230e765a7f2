"""The caches that specc keeps on this machine: who may use an entry, how long one lasts, and how large all may be.

    ROOT/KIND/KEY/    an entry. KIND says what it holds, KEY what the content depends on

Entries belong to one user: their directories have mode 0700, and an entry of another user is dropped, not read. A cache
can be deleted at any time.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from .environment import cache_root, cache_size

KINDS = ("packed", "checked", "timing", "peers")
LOCK = ".lock"
DROPPED = ".dropped"  # ends the name of an entry that is being deleted
POLL_SECONDS = 0.02


@dataclass(frozen=True, kw_only=True)
class CachePolicy:
    """How long entries last, and how long one waits for them.

    Attributes:
        unused_seconds: an entry that no process used for so long is deleted.
        lock_seconds: how long a process waits for another one that works on an entry.
    """

    unused_seconds: float = 30 * 86400
    lock_seconds: float = 60


POLICY = CachePolicy()


@dataclass(frozen=True, kw_only=True)
class CacheEntry:
    """An entry of a cache.

    Attributes:
        path: its directory.
        kind: what it holds, one of KINDS.
        bytes: the sizes of its files.
        last_use: seconds since the epoch.
    """

    path: Path
    kind: str
    bytes: int
    last_use: float


def cache_directory(kind: str, key: str, policy: CachePolicy = POLICY) -> Path:
    """Create the directory of one entry, mark it as used, and delete its neighbours that nobody uses.

    Args:
        kind: what is cached, one of KINDS.
        key: what the content depends on, as a file name.
        policy: how long entries last.

    Raises:
        CacheOffError: SPECC_CACHE is off.
        OSError: the directory cannot be created or written, or belongs to another user.
    """
    parent = cache_root() / kind
    parent.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if _make_own(parent) & 0o077:
        parent.chmod(0o700)
    directory = parent / key
    with contextlib.suppress(FileNotFoundError):
        if not _is_private(directory):
            drop(directory)
    _make_own(directory)
    os.utime(directory)
    for neighbour in parent.iterdir():
        with contextlib.suppress(OSError):
            if time.time() - neighbour.lstat().st_mtime > policy.unused_seconds or neighbour.name.endswith(DROPPED):
                drop(neighbour)
    return directory


def _make_own(directory: Path) -> int:
    """Create a directory that only this user can read, or check that it belongs to this user. Return its mode.

    Raises:
        PermissionError: it is a link or a file, or belongs to another user.
    """
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
    status = directory.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid():
        raise PermissionError(errno.EPERM, "it is not a directory of this user", str(directory))
    return status.st_mode


def _is_private(directory: Path) -> bool:
    """Return whether a path is a directory of this user that no other user could read or write.

    Raises:
        FileNotFoundError: there is nothing at the path.
    """
    status = directory.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and not status.st_mode & 0o077


@contextlib.contextmanager
def locked_entry(kind: str, key: str, shared: bool = False, policy: CachePolicy = POLICY) -> Iterator[Path]:
    """Yield the directory of an entry, locked against other processes and threads until the block ends.

    Args:
        kind: what is cached, one of KINDS.
        key: what the content depends on, as a file name.
        shared: others may have a shared lock at the same time.
        policy: how long to wait for the lock.

    Raises:
        TimeoutError: another process kept the lock.
        OSError: the directory cannot be created or written, or belongs to another user.
    """
    deadline = time.monotonic() + policy.lock_seconds
    with contextlib.ExitStack() as stack:
        while True:
            directory = cache_directory(kind, key, policy)
            try:
                handle = stack.enter_context(_open_lock(directory / LOCK))
            except FileNotFoundError:  # Another process dropped the entry at this moment.
                continue
            if not _acquire(handle, shared, deadline):
                raise TimeoutError(errno.ETIMEDOUT, "another process keeps the lock", str(directory / LOCK))
            if is_at(handle, directory / LOCK):
                break
            stack.close()  # The lock is that of an entry that was dropped.
        yield directory


@contextlib.contextmanager
def _open_lock(file: Path) -> Iterator[int]:
    """Open a lock file without following a link, and without waiting as a FIFO makes one wait.

    What is not a file of this user is removed first.

    Raises:
        OSError: it cannot be opened.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with contextlib.suppress(FileNotFoundError):
        status = file.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            delete(file)
    handle = os.open(file, flags, 0o600)
    try:
        yield handle
    finally:
        os.close(handle)


def _acquire(handle: int, shared: bool, deadline: float) -> bool:
    """Lock an open file. Return False if the lock is not free until `deadline`, a time of time.monotonic."""
    while True:
        try:
            fcntl.flock(handle, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        else:
            return True


def is_at(handle: int, file: Path) -> bool:
    """Return whether an open file still lies at a path."""
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(handle), file.lstat())
    return False


def entries() -> list[CacheEntry]:
    """List the entries of all caches, the one that was not used for longest first. There are none without a cache."""
    cached = []
    with contextlib.suppress(OSError):
        root = cache_root()
        for kind in KINDS:
            if (root / kind).is_symlink():  # What lies behind a link is not specc's to delete.
                continue
            with contextlib.suppress(OSError):
                for path in (root / kind).iterdir():
                    with contextlib.suppress(OSError):
                        last_use = path.lstat().st_mtime
                        cached.append(CacheEntry(path=path, kind=kind, bytes=_bytes(path), last_use=last_use))
    return sorted(cached, key=lambda entry: entry.last_use)


def clean(unused_seconds: float = 0) -> list[CacheEntry]:
    """Drop the entries that no process used for so long; 0 drops all. One that is in use is left.

    Returns:
        The entries that were dropped.
    """
    now = time.time()
    return [entry for entry in entries() if now - entry.last_use >= unused_seconds and drop(entry.path)]


def make_room(count: int, keep: Path) -> None:
    """Drop the entries that were not used for longest, until `count` more bytes fit into SPECC_CACHE_SIZE.

    Args:
        count: bytes that will be written.
        keep: the entry that they are for, which is not dropped.

    Raises:
        OSError: they do not fit beside `keep`.
        BackendError: SPECC_CACHE_SIZE is not a size.
    """
    limit = cache_size()
    size_to_keep, others = _bytes(keep), [entry for entry in entries() if entry.path != keep]
    if size_to_keep + count > limit:
        size = (size_to_keep + count) >> 20
        raise OSError(errno.EDQUOT, f"they take {size} MiB, and SPECC_CACHE_SIZE allows {limit >> 20} MiB")
    excess = size_to_keep + count + sum(entry.bytes for entry in others) - limit
    for entry in others:
        if excess > 0 and drop(entry.path):
            excess -= entry.bytes


def drop(entry: Path) -> bool:
    """Delete an entry, unless a process works on it at this moment. Return whether it is gone.

    Sessions that mapped its files keep them until they end.
    """
    with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
        if entry.is_dir() and not entry.is_symlink() and (entry / LOCK).exists():
            handle = stack.enter_context(_open_lock(entry / LOCK))
            if not _acquire(handle, shared=False, deadline=0):
                return False
        if entry.name.endswith(DROPPED):
            delete(entry)
        else:
            dropped = entry.with_name(f".{secrets.token_hex(4)}{DROPPED}")
            entry.rename(dropped)  # Nobody sees half of an entry.
            delete(dropped)
    return not os.path.lexists(entry)


def delete(path: Path) -> None:
    """Delete a file, a link, or a directory with all that is in it."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _bytes(directory: Path) -> int:
    """Return the sizes of all files in a directory. Links are not followed."""
    total = 0
    for folder, _, names in os.walk(directory):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_size
    return total
