"""A bundle of whatever files lie in a directory."""

from __future__ import annotations

from pathlib import Path

from specc.runtime.bundle import Bundle
from specc.runtime.manifest import FileSpec, Manifest, ModelSpec

MODEL = ModelSpec(
    source="none", revision="local", architecture="None", vocab_size=24, layers=1, context=64, eos_token_ids=()
)


def bundle_of(directory: Path) -> Bundle:
    """Return a bundle that lists every file of a directory and has no engines. Their digests are not taken."""
    names = sorted(f.relative_to(directory).as_posix() for f in directory.rglob("*") if f.is_file())
    manifest = Manifest(
        schema=1,
        model=MODEL,
        engines=(),
        caches={},
        recipes=(),
        default_recipe="plain",
        versions={},
        files={name: FileSpec((directory / name).stat().st_size, "") for name in names},
    )
    return Bundle(directory, manifest)
