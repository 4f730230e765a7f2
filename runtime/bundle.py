"""A bundle is a directory; this file opens one, checks one, and writes one whole or not at all."""

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
PARTIAL, OLD = ".partial", ".old"  # how the names of what is not yet, or no longer, a bundle end


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: every file that the manifest lists is there, at its size."""

    path: Path
    manifest: Manifest

    def file(self, name: str) -> Path:
        return self.path / name

    def engine(self, name: str, backend: str | None = None) -> EngineSpec:
        """The engine of that name, of the first backend that has it, or of one."""
        try:
            return next(e for e in self.manifest.engines if e.name == name and backend in (None, e.backend))
        except StopIteration:
            names = ", ".join(e.name for e in self.manifest.engines)
            raise BundleError(f"{self.path} has no engine {name!r}, only {names}") from None

    def recipe(self, name: str | None = None) -> Recipe:
        """The recipe of that name; None is the bundle's default."""
        name = name or self.manifest.default_recipe
        names = [r.name for r in self.manifest.recipes]
        if name not in names:
            near = get_close_matches(name, names, 1)
            hint = f"did you mean {near[0]!r}?" if near else "compile with --recipe to add one"
            raise RecipeError(f"this bundle has no recipe {name!r}, only {', '.join(names)}; {hint}")
        return self.manifest.recipes[names.index(name)]

    def check(self, *names: str) -> None:
        """Compare the SHA-256 of the files named, or of all. Raises BundleError naming the first that differs."""
        for name, spec in self.manifest.files.items():
            if (not names or name in names) and sha256(self.file(name)) != spec.sha256:
                raise BundleError(f"{self.file(name)} was altered after compiling; compile the bundle again")

    def check_once(self) -> None:
        """Like `check`, but files that this machine has checked, and that did not change since, are not read again."""
        stamps = {name: stamp(self.file(name)) for name in self.manifest.files}
        try:
            where = hashlib.sha256(f"{self.path.resolve()} {_digest(to_json(self.manifest))}".encode()).hexdigest()[:32]
            kept = cache_directory("checked", where) / "stamps.json"
        except OSError:
            return self.check()
        known: dict[str, list[int]] = {}
        with contextlib.suppress(OSError, ValueError):
            known = json.loads(kept.read_text())
        if changed := [name for name in stamps if known.get(name) != stamps[name]]:
            self.check(*changed)
            with contextlib.suppress(OSError):
                kept.write_text(json.dumps(stamps))
        return None


def open_bundle(path: str | Path) -> Bundle:
    """Read and check the manifest and the sizes of the files. Raises BundleError."""
    path = Path(path)
    if not path.is_dir():
        raise BundleError(f"no bundle at {path}; make one with: specc compile MODEL -o {path}")
    try:
        data = json.loads((path / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BundleError(f"{path} has no {MANIFEST}; it is no bundle, or its compile was moved by hand") from None
    except (OSError, ValueError) as e:
        raise BundleError(f"{path / MANIFEST} cannot be read ({e}); compile the bundle again") from e
    schema = data.get("schema") if isinstance(data, dict) else None
    if isinstance(schema, int) and schema > SCHEMA:
        raise BundleError(f"{path} has schema version {schema}, newer than {SCHEMA}; upgrade specc")
    stated = data.pop("manifest_sha256", None) if isinstance(data, dict) else None
    if stated != _digest(data):
        raise BundleError(f"{path / MANIFEST} was altered after compiling; compile the bundle again")
    manifest = from_json(Manifest, data)
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


def write_manifest(path: Path, manifest: Manifest) -> Manifest:
    """Write `manifest.json` for the files now in `path`, with their sizes and hashes; return it completed."""
    partial = path / (MANIFEST + ".partial")
    partial.unlink(missing_ok=True)  # of a process that was killed as it wrote
    names = sorted(f.relative_to(path).as_posix() for f in path.rglob("*") if f.is_file() and f.name != MANIFEST)
    known = manifest.files
    files = {n: known.get(n) or FileSpec((path / n).stat().st_size, sha256(path / n)) for n in names}
    manifest = replace(manifest, files=files)
    data = to_json(manifest)
    text = json.dumps({**data, "manifest_sha256": _digest(data)}, indent=1) + "\n"
    partial.write_text(text, encoding="utf-8")
    partial.replace(path / MANIFEST)
    return manifest


@contextlib.contextmanager
def written_whole(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """A directory to fill that becomes `path` when the block ends, and vanishes if it fails.

    A process that is killed leaves it to the next one.
    """
    _clear_away(path)
    if path.exists() and not overwrite:
        raise BundleError(f"{path} exists; choose another output, or replace it with --overwrite")
    if path.exists() and not (path / MANIFEST).exists():
        raise BundleError(f"{path} exists and is no bundle; choose another output")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as e:
        raise BundleError(f"{path.parent} cannot hold a bundle ({e.strerror}); choose another output") from e
    made = Path(tempfile.mkdtemp(prefix=".specc-", dir=path.parent))
    with _locked(made):  # before it has a name that is cleared away
        partial = made.rename(path.with_name(f".{path.name}.{made.name[-8:]}{PARTIAL}"))
        try:
            yield partial
            partial.chmod(0o777 & ~_umask())
            _replace(path, partial)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[bool]:
    """Whether nobody else holds this directory; it is held until the block or the process ends, however that does."""
    handle, free = os.open(directory, os.O_RDONLY), False
    try:
        with contextlib.suppress(OSError):  # another's, or a file system without locks
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            free = True
        yield free
    finally:
        os.close(handle)


def _clear_away(path: Path) -> None:
    """Remove what killed processes left of writing `path`; a bundle that one was about to replace is put back."""
    for left in path.parent.glob(f".{escape(path.name)}.????????{PARTIAL}*"):
        partial = left.with_name(left.name.removesuffix(OLD))
        with contextlib.suppress(OSError), _locked(partial if partial.exists() else left) as free:
            if free:
                old = partial.with_name(partial.name + OLD)
                if old.exists() and not path.exists():
                    old.rename(path)
                shutil.rmtree(old, ignore_errors=True)
                shutil.rmtree(partial, ignore_errors=True)


def _replace(path: Path, new: Path) -> None:
    """Put `new` where `path` is, or leave what is there."""
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
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()


def _digest(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
