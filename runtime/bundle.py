"""A bundle is a directory with a manifest. This file opens one, checks one, and writes one whole or not at all."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from glob import escape
from pathlib import Path
from typing import Any

from .environment import cache_directory, stamp
from .errors import BundleError, RecipeError
from .json_codec import from_json, to_json
from .manifest import SCHEMA, EngineSpec, FileSpec, Manifest, check_names
from .recipe import Recipe

MANIFEST = "manifest.json"
PARTIAL = ".partial"  # ends the name of a directory or file that is not complete yet
OLD = ".old"  # ends the name of a bundle that is being replaced


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: every file that the manifest lists is there and has its size."""

    path: Path
    manifest: Manifest

    def file(self, name: str) -> Path:
        """Return the path of a file of the bundle."""
        return self.path / name

    def engine(self, name: str, backend: str | None = None) -> EngineSpec:
        """Return the engine of that name.

        Args:
            name: an engine's name in the manifest.
            backend: whose engine; None takes the first backend that has one of that name.

        Raises:
            BundleError: there is no such engine.
        """
        try:
            return next(e for e in self.manifest.engines if e.name == name and backend in (None, e.backend))
        except StopIteration:
            names = ", ".join(e.name for e in self.manifest.engines)
            raise BundleError(f"{self.path} has no engine {name!r}, only {names}; compile the bundle again") from None

    def recipe(self, name: str | None = None) -> Recipe:
        """Return the recipe of that name; None means the bundle's default.

        Raises:
            RecipeError: there is no such recipe. The message suggests the nearest name.
        """
        name = name or self.manifest.default_recipe
        names = [r.name for r in self.manifest.recipes]
        if name not in names:
            near = get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]!r}?" if near else "compile with --recipe to add one"
            raise RecipeError(f"this bundle has no recipe {name!r}, only {', '.join(names)}; {hint}")
        return self.manifest.recipes[names.index(name)]

    def check(self, *names: str) -> None:
        """Compare the SHA-256 of these files with the manifest, or of all files if none is named.

        Raises:
            BundleError: naming the first file that differs.
        """
        for name, spec in self.manifest.files.items():
            if (not names or name in names) and sha256(self.file(name)) != spec.sha256:
                raise BundleError(f"{self.file(name)} was altered after compiling; compile the bundle again")

    def check_once(self) -> None:
        """Compare the SHA-256 of all files, but read a file only if it changed since this machine last checked it.

        A cache keeps each file's size and time of last change. Without a cache every file is read.

        Raises:
            BundleError: naming the first file that differs.
        """
        stamps = {name: stamp(self.file(name)) for name in self.manifest.files}
        try:
            key = hashlib.sha256(f"{self.path.resolve()} {_digest(to_json(self.manifest))}".encode()).hexdigest()[:32]
            record = cache_directory("checked", key) / "stamps.json"
        except OSError:
            self.check()
            return
        earlier: dict[str, list[int]] = {}
        with contextlib.suppress(OSError, ValueError):
            earlier = json.loads(record.read_text())
        if changes := [name for name in stamps if earlier.get(name) != stamps[name]]:
            self.check(*changes)
            with contextlib.suppress(OSError):
                record.write_text(json.dumps(stamps))


def open_bundle(path: str | Path) -> Bundle:
    """Read the manifest, and check it, its names, and the sizes of the files.

    Raises:
        BundleError: there is no bundle, or it is damaged, altered, or of a newer schema.
    """
    path = Path(path)
    manifest = from_json(Manifest, _read_manifest(path))
    check_names(manifest)
    for name, spec in manifest.files.items():
        file = path / name
        if not file.resolve().is_relative_to(path.resolve()):
            raise BundleError(f"manifest.files: {name!r} lies outside the bundle; compile the bundle again")
        if not file.is_file():
            raise BundleError(f"{file} is missing; compile the bundle again")
        if file.stat().st_size != spec.bytes:
            size = file.stat().st_size
            raise BundleError(f"{file} has {size} bytes instead of {spec.bytes}; compile the bundle again")
    return Bundle(path, manifest)


def _read_manifest(path: Path) -> dict[str, Any]:
    """Read `manifest.json`, and check its schema version and its digest, which is taken out of the data.

    Raises:
        BundleError: it is missing, unreadable, newer than this runtime, or was altered.
    """
    if not path.is_dir():
        raise BundleError(f"no bundle at {path}; make one with: specc compile MODEL -o {path}")
    file = path / MANIFEST
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(f"{path} has no {MANIFEST}, so it is not a bundle; compile the bundle again") from None
    except (OSError, ValueError) as e:
        raise BundleError(f"{file} cannot be read ({e}); compile the bundle again") from e
    if not isinstance(data, dict):
        raise BundleError(f"{file} was altered after compiling; compile the bundle again")
    schema = data.get("schema")
    if isinstance(schema, int) and schema > SCHEMA:
        raise BundleError(f"{path} has schema version {schema}, newer than {SCHEMA}; upgrade specc")
    if data.pop("manifest_sha256", None) != _digest(data):
        raise BundleError(f"{file} was altered after compiling; compile the bundle again")
    return data


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
    text = json.dumps({**data, "manifest_sha256": _digest(data)}, indent=1) + "\n"
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
            partial.chmod(0o777 & ~_umask())
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


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _digest(data: Any) -> str:
    """Return the SHA-256 of plain data: of Python's `json.dumps` with sorted keys, in ASCII."""
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _umask() -> int:
    """Return the process's umask, which can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
