"""A bundle is written whole or not at all, whatever ends the process."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_bundle import fill

from specc.runtime.bundle import open_bundle
from specc.runtime.bundle_writer import write_manifest, written_whole
from specc.runtime.errors import BundleError


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle, alone in its directory."""
    monkeypatch.setenv("SPECC_CACHE", str(tmp_path / "cache"))
    fill(tmp_path / "here/demo.specc")
    return tmp_path / "here/demo.specc"


def test_writing_the_manifest_again_keeps_the_files(path: Path) -> None:
    manifest = open_bundle(path).manifest
    assert write_manifest(path, replace(manifest, default_recipe="lookahead")).files == manifest.files
    assert open_bundle(path).recipe().name == "lookahead"


def beside(path: Path) -> list[str]:
    return sorted(p.name for p in path.parent.iterdir())


def weights(path: Path) -> bytes:
    return (open_bundle(path).path / "weights.safetensors").read_bytes()


def test_a_new_bundle_appears_when_it_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new/demo.specc"
    with written_whole(path) as partial:
        fill(partial)
        assert not path.exists()
    assert weights(path) == b"weights" and beside(path) == ["demo.specc"]


def test_everybody_whom_the_umask_admits_can_read_every_file_of_a_bundle(tmp_path: Path) -> None:
    """Safetensors writes files that only their owner can read."""
    before = os.umask(0o027)
    try:
        with written_whole(tmp_path / "demo.specc") as partial:
            fill(partial)
            (partial / "weights.safetensors").chmod(0o600)
            (partial / "sub").chmod(0o700)
    finally:
        os.umask(before)
    modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (tmp_path / "demo.specc").rglob("*")}
    assert modes.pop("sub") == 0o750 == stat.S_IMODE((tmp_path / "demo.specc").stat().st_mode)
    assert set(modes.values()) == {0o640} and "manifest.json" in modes


def test_overwriting_replaces_the_old_bundle(path: Path) -> None:
    with written_whole(path, overwrite=True) as partial:
        fill(partial, b"other")
        assert weights(path) == b"weights"
    assert weights(path) == b"other" and beside(path) == ["demo.specc"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt(), BundleError("no")])
def test_a_compile_that_fails_leaves_nothing_and_keeps_the_old_bundle(path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)), written_whole(path, overwrite=True) as partial:
        (partial / "weights.safetensors").write_bytes(b"half")
        raise error
    assert weights(path) == b"weights" and beside(path) == ["demo.specc"]
    with pytest.raises(type(error)), written_whole(path.parent / "new.specc") as partial:
        raise error
    assert beside(path) == ["demo.specc"]


def test_a_rename_that_fails_brings_the_old_bundle_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def full(self: Path, target: Path) -> Path:
        if target == path and not self.name.endswith(".old"):
            raise OSError(28, "No space left on device")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(OSError, match="No space"), written_whole(path, overwrite=True) as partial:
        fill(partial, b"other")
    assert weights(path) == b"weights" and beside(path) == ["demo.specc"]


def test_half_a_manifest_that_a_killed_process_left_is_no_file_of_the_bundle(path: Path) -> None:
    (path / "manifest.json.partial").write_text("{")
    assert "manifest.json.partial" not in write_manifest(path, open_bundle(path).manifest).files
    assert open_bundle(path).path == path and not (path / "manifest.json.partial").exists()


def remnant(path: Path, name: str) -> Path:
    """Make what a killed process left of a bundle that was complete."""
    fill(path.with_name(name), b"left")
    return path.with_name(name)


def test_what_a_killed_process_left_is_removed_by_the_next_try(path: Path) -> None:
    remnant(path, ".demo.specc.abcd_123.partial")
    remnant(path, ".demo.specc.abcd_124.partial.old")
    with pytest.raises(BundleError, match="exists"), written_whole(path):
        pytest.fail("was begun")
    assert weights(path) == b"weights" and beside(path) == ["demo.specc"]


@pytest.mark.parametrize("complete", [True, False])
def test_a_bundle_that_a_killed_process_was_about_to_replace_is_put_back(path: Path, complete: bool) -> None:
    old = path.rename(path.with_name(".demo.specc.abcd_123.partial.old"))
    if complete:
        remnant(path, old.name.removesuffix(".old"))
    with pytest.raises(BundleError, match="exists"), written_whole(path):
        pytest.fail("was begun")
    assert weights(path) == b"weights" and beside(path) == ["demo.specc"]


def test_what_a_living_process_writes_is_left_alone(path: Path) -> None:
    """And what has another name."""
    others = [".demo.specc.x.abcd_123.partial", ".demo.specc.notes", ".other.specc.abcd_123.partial"]
    for name in others:
        remnant(path, name)
    with written_whole(path, overwrite=True) as first:
        fill(first, b"first")
        path.rename(old := first.with_name(f"{first.name}.old"))
        with written_whole(path) as second:
            fill(second, b"second")
            assert first.exists() and old.exists() and not path.exists()
        assert weights(path) == b"second"
        assert first.exists() and old.exists()
        shutil.rmtree(old)
    assert weights(path) == b"first" and beside(path) == sorted([*others, "demo.specc"])


def directory_with_a_file(path: Path) -> None:
    path.mkdir()
    (path / "thesis.tex").write_text("all of it")


THERE: dict[str, tuple[Callable[[Path], Any], bool]] = {
    "a bundle": (fill, False),
    "a directory": (directory_with_a_file, True),
    "an empty directory": (Path.mkdir, True),
    "a file": (lambda p: p.write_text("dear diary"), True),
}


@pytest.mark.parametrize(("make", "overwrite"), THERE.values(), ids=THERE)
def test_nothing_is_replaced_but_a_bundle_by_consent(
    tmp_path: Path, make: Callable[[Path], Any], overwrite: bool
) -> None:
    make(tmp_path / "there")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(BundleError, match="exists"), written_whole(tmp_path / "there", overwrite):
        pytest.fail("was begun")
    assert sorted(tmp_path.rglob("*")) == before
