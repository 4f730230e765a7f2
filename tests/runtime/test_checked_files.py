"""A file that this machine has checked is read again only if it changed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from small_bundle import fill

from specc.runtime import bundle as bundles
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
