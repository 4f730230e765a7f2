"""A bundle is a directory with a manifest. This file opens one and checks one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from .errors import BundleError, RecipeError, nearest, printable
from .manifest import EngineSpec, Manifest
from .manifest_checks import check_manifest
from .manifest_file import read_manifest
from .recipe import Recipe

MANIFEST = "manifest.json"
GGUF = ".gguf"  # ends the name of a model's file; users pass such a file in place of a bundle


@dataclass(frozen=True)
class Bundle:
    """An opened bundle: every file that the manifest lists is there and has its size.

    Attributes:
        path: its directory.
        manifest: what it says about itself.
        allow_native_code: whether the user trusts its author to run native code here.
    """

    path: Path
    manifest: Manifest
    allow_native_code: bool = False

    def file(self, name: str) -> Path:
        """Return the path of a file of the bundle. Every file that the runtime reads comes from here.

        Raises:
            BundleError: the manifest does not list it, so nothing says what its content must be.
        """
        if name != MANIFEST and name not in self.manifest.files:
            raise BundleError(f"{self.path}: the manifest does not list {printable(name)!r}; compile the bundle again")
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
        if name is None or (isinstance(name, str) and not name):
            name = self.manifest.default_recipe
        names = [r.name for r in self.manifest.recipes]
        if not isinstance(name, str):
            raise RecipeError(f"recipe is {name!r}; give a name: {', '.join(names)}")
        if name not in names:
            hint = nearest(name, names, "compile with --recipe to add one")
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


def open_bundle(path: str | Path, allow_native_code: bool = False) -> Bundle:
    """Read the manifest, and check it, its names, and the sizes of the files.

    Args:
        path: the bundle's directory.
        allow_native_code: whether engines that are native code may be loaded.

    Raises:
        BundleError: there is no bundle, or it is damaged, altered, or of a newer schema.
    """
    path = Path(path)
    manifest = _read_manifest(path)
    check_manifest(manifest)
    for name, spec in manifest.files.items():
        file = path / name
        # A link is followed, as snapshots of the hub have them. Its content must have the size and the digest.
        if not file.is_file():
            raise BundleError(f"{file} is missing; compile the bundle again")
        if file.stat().st_size != spec.bytes:
            size = file.stat().st_size
            raise BundleError(f"{file} has {size} bytes instead of {spec.bytes}; compile the bundle again")
    return Bundle(path, manifest, allow_native_code)


def _compile_command(model: Path) -> str:
    """Return the command that compiles a model into a directory beside it."""
    return f"specc compile {model} -o {model.with_suffix('') if model.suffix == GGUF else model}.specc"


def _read_manifest(path: Path) -> Manifest:
    """Read the manifest of the bundle at `path`.

    Raises:
        BundleError: there is no bundle, or its manifest cannot be used.
    """
    if not path.is_dir():
        if path.suffix != GGUF:
            raise BundleError(f"no bundle at {path}; make one with: specc compile MODEL -o {path}")
        state = "is a model, not a bundle" if path.is_file() else "is not there"
        raise BundleError(f"{path} {state}; compile the model first: {_compile_command(path)}")
    try:
        return read_manifest(path / MANIFEST)
    except FileNotFoundError:
        if (path / "config.json").is_file() or any(path.glob(f"*{GGUF}")):
            raise BundleError(f"{path} is a model, not a bundle; compile it first: {_compile_command(path)}") from None
        raise BundleError(f"{path} has no {MANIFEST}, so it is not a bundle; compile the bundle again") from None


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
