"""A file that this machine has checked is read again only if it changed."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from small_bundle import fill

from specc.runtime import bundle as bundles
from specc.runtime import checked_files
from specc.runtime.bundle import open_bundle
from specc.runtime.checked_files import check_once
from specc.runtime.errors import BundleError


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bundle, alone in its directory."""
    monkeypatch.setenv("SPECC_CACHE", str(tmp_path / "cache"))
    fill(tmp_path / "here/demo.specc")
    return tmp_path / "here/demo.specc"


def test_a_file_of_the_right_size_and_the_wrong_content_is_found(path: Path) -> None:
    bundle = open_bundle(path)
    check_once(bundle)
    (path / "weights.safetensors").write_bytes(b"Weights")
    os.utime(path / "weights.safetensors", ns=(0, 0))
    with pytest.raises(BundleError, match=r"weights\.safetensors was altered"):
        check_once(bundle)


@pytest.mark.parametrize(("cache", "reads"), [("kept", [3, 0, 0]), ("damaged", [3, 3, 0]), ("off", [3, 3, 3])])
def test_what_this_machine_has_checked_is_not_read_again(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: str, reads: list[int]
) -> None:
    monkeypatch.setenv("SPECC_CACHE", "off" if cache == "off" else str(tmp_path / cache))
    sha256, read = bundles.sha256, list[Path]()

    def reading(file: Path) -> str:
        read.append(file)
        return sha256(file)

    monkeypatch.setattr(bundles, "sha256", reading)
    for step, expected in enumerate(reads):
        read.clear()
        check_once(open_bundle(path))
        assert len(read) == expected
        if cache == "damaged" and step == 0:
            next(tmp_path.glob("damaged/*/*/*.json")).write_text("{")


@pytest.mark.parametrize("text", ["null", "[]", "3", "[" * 100_000, '{"decode.onnx": null}', "\xff"])
def test_a_record_that_is_none_is_ignored_and_written_anew(path: Path, tmp_path: Path, text: str) -> None:
    check_once(open_bundle(path))
    record = next(tmp_path.glob("cache/checked/*/*.json"))
    whole = record.read_text()
    record.write_text(text, encoding="latin-1")
    check_once(open_bundle(path))
    assert record.read_text() == whole


def test_a_change_is_found_though_size_and_time_are_set_back(path: Path) -> None:
    bundle = open_bundle(path)
    check_once(bundle)
    file = path / "weights.safetensors"
    status = file.stat()
    file.write_bytes(b"Weights")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(BundleError, match=r"weights\.safetensors was altered"):
        check_once(bundle)


def overwrite(path: Path) -> None:
    shutil.rmtree(path)
    fill(path, b"Weights")


@pytest.mark.parametrize("change", [overwrite, shutil.rmtree])
def test_files_that_were_replaced_after_the_check_are_an_error(path: Path, change: Callable[[Path], object]) -> None:
    files = check_once(open_bundle(path))
    files.check_again()
    change(path)
    message = f"the bundle at {path} was replaced while this session was open; load it again"
    with pytest.raises(BundleError, match=re.escape(message)):
        files.check_again()


def test_equal_files_in_their_place_are_read_once_and_accepted(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, read = check_once(open_bundle(path)), list[Path]()
    shutil.rmtree(path)
    fill(path)

    def digest(file: Path) -> str:
        read.append(file)
        return bundles.sha256(file)

    monkeypatch.setattr(checked_files, "sha256", digest)
    files.check_again()
    files.check_again()
    assert len(read) == 3


def test_half_a_record_that_a_killed_process_left_is_removed_by_the_next(path: Path, tmp_path: Path) -> None:
    check_once(open_bundle(path))
    record = next(tmp_path.glob("cache/checked/*/*.json"))
    record.rename(record.with_name("0123abcd.partial"))
    check_once(open_bundle(path))
    assert list(record.parent.iterdir()) == [record]
