"""A bundle is written whole or not at all, whatever ends the process."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from small_bundle import fill

from specc.runtime import bundle_writer
from specc.runtime.bundle import open_bundle
from specc.runtime.bundle_writer import check_writable, replace_manifest, write_manifest, written_whole
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


def test_a_bundle_is_replaced_where_a_link_leads_and_the_link_stays(path: Path) -> None:
    link = path.with_name("link.specc")
    link.symlink_to(path)
    before = weights(path)
    with written_whole(link, overwrite=True) as partial:
        fill(partial)
    assert link.is_symlink() and weights(link) == weights(path) == before
    assert beside(path) == ["demo.specc", "link.specc"]


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


def begin_at_one_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let processes begin to write one path so closely together that none sees another."""
    monkeypatch.setattr(bundle_writer, "_is_in_use", lambda path: False)


def test_what_a_living_process_writes_is_left_alone(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what has another name."""
    begin_at_one_moment(monkeypatch)
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


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_second_compile_to_one_output_is_refused_before_its_work(path: Path, overwrite: bool) -> None:
    with written_whole(path, overwrite=True) as first:
        fill(first, b"first")
        if not overwrite:
            path.rename(path.with_name("elsewhere"))
        message = rf"another process writes {path} now; wait for it, or choose another output"
        with pytest.raises(BundleError, match=message), written_whole(path, overwrite):
            pytest.fail("was begun")
        assert first.exists()
    assert weights(path) == b"first"


def test_a_file_system_without_locks_refuses_nobody(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    remnant(path, f".{path.name}.abcd_123.partial")
    with written_whole(path, overwrite=True) as partial:
        fill(partial, b"next")
    assert weights(path) == b"next"


def test_two_compiles_to_one_new_output_lose_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begin_at_one_moment(monkeypatch)
    path = tmp_path / "demo.specc"
    with pytest.raises(BundleError, match="another process wrote"):  # noqa: SIM117
        with written_whole(path) as late:
            fill(late, b"late")
            with written_whole(path) as early:
                fill(early, b"early")
    assert weights(path) == b"early" and beside(path) == ["demo.specc"]


@pytest.mark.process
def test_a_process_that_is_killed_when_it_has_just_made_its_directory_leaves_nothing_for_the_next(path: Path) -> None:
    code = f"""
import fcntl, os, signal
from pathlib import Path
from specc.runtime.bundle_writer import written_whole
fcntl.flock = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
written_whole(Path({str(path)!r}), overwrite=True).__enter__()
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == -signal.SIGKILL
    assert len(beside(path)) == 2
    with written_whole(path, overwrite=True) as partial:
        fill(partial, b"next")
    assert weights(path) == b"next" and beside(path) == ["demo.specc"]


def test_a_directory_that_another_process_cleared_away_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, calls = fcntl.flock, list[int]()

    def late(handle: int, operation: int) -> None:
        calls.append(handle)
        if len(calls) == 1:
            next(tmp_path.glob(".demo.specc.*")).rmdir()
        flock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    with written_whole(tmp_path / "demo.specc") as partial:
        fill(partial)
    assert weights(tmp_path / "demo.specc") == b"weights" and len(calls) > 1


def test_a_manifest_that_another_process_cleared_away_before_it_was_locked_is_written_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock, calls = fcntl.flock, list[Any]()

    def late(handle: Any, operation: int) -> None:
        calls.append(handle)
        if len(calls) == 1:
            next(path.glob("manifest.json.*")).unlink()
        if len(calls) == 2:
            raise BlockingIOError
        flock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", late)
    write_manifest(path, open_bundle(path).manifest)
    assert len(calls) == 3 and len(list(path.iterdir())) == 4


@pytest.mark.thorough
def test_readers_see_a_whole_manifest_while_several_processes_write_it(path: Path) -> None:
    manifest = open_bundle(path).manifest

    def write(name: str) -> None:
        for _ in range(100):
            write_manifest(path, replace(manifest, default_recipe=name))

    with ThreadPoolExecutor(2) as pool:
        writers = [pool.submit(write, name) for name in ("lookahead", "plain")]
        while not all(writer.done() for writer in writers):
            assert open_bundle(path).recipe().name in ("lookahead", "plain")
        for writer in writers:
            writer.result()
    assert open_bundle(path).manifest.files == manifest.files
    assert sorted(p.name for p in path.iterdir()) == ["decode.onnx", "manifest.json", "sub", "weights.safetensors"]


def test_a_manifest_that_finds_no_room_is_one_error_and_leaves_the_old_one(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, files = (path / "manifest.json").read_bytes(), sorted(path.rglob("*"))
    bundle, opened = open_bundle(path), Path.open

    def full(self: Path, mode: str = "r", *args: Any, **options: Any) -> Any:
        file = opened(self, mode, *args, **options)
        if "x" in mode:
            file.write("half")
            raise OSError(28, "No space left on device")
        return file

    monkeypatch.setattr(Path, "open", full)
    for attempt in (
        lambda: check_writable(path),
        lambda: write_manifest(path, bundle.manifest),
        lambda: replace_manifest(bundle, replace(bundle.manifest, default_recipe="lookahead")),
    ):
        with pytest.raises(BundleError, match=r"manifest\.json cannot be written \(.*No space left.*\); make room"):
            attempt()
        assert (path / "manifest.json").read_bytes() == before and sorted(path.rglob("*")) == files


def test_a_bundle_that_was_replaced_since_it_was_opened_gets_no_manifest_of_the_old_one(path: Path) -> None:
    bundle = open_bundle(path)
    with written_whole(path, overwrite=True) as partial:
        fill(partial, b"other weights")
    with pytest.raises(BundleError, match="was changed while this process worked on it; start again"):
        replace_manifest(bundle, replace(bundle.manifest, default_recipe="lookahead"))
    assert weights(path) == b"other weights" and open_bundle(path).recipe().name == "plain"


def test_a_file_that_only_looks_like_a_manifest_is_kept(path: Path) -> None:
    (path / "manifest.json.bak").write_text("mine")
    write_manifest(path, open_bundle(path).manifest)
    assert (path / "manifest.json.bak").read_text() == "mine"
