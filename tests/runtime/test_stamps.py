"""A stamp changes with a file, also if its size and its time of change are set back."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from specc.runtime.stamps import stamp, wait_until_settled


def overwrite(file: Path) -> None:
    file.write_bytes(b"Weights")


def replace(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(b"Weights")
    other.replace(file)


@pytest.mark.parametrize("change", [overwrite, replace])
def test_a_change_of_content_shows_though_size_and_time_are_as_before(tmp_path: Path, change: object) -> None:
    assert callable(change)
    file = tmp_path / "weights"
    file.write_bytes(b"weights")
    assert wait_until_settled([file])
    status, before = file.stat(), stamp(file)
    assert stamp(file) == before
    change(file)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert file.stat().st_mtime_ns == status.st_mtime_ns and file.stat().st_size == status.st_size
    assert stamp(file) != before


def test_a_link_has_the_stamp_of_its_file_unless_links_are_not_followed(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_bytes(b"weights")
    link.symlink_to(file)
    assert stamp(link) == stamp(file) != stamp(link, follow_symlinks=False)


def test_a_clock_that_is_far_ahead_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.touch()
    monkeypatch.setattr(time, "time_ns", lambda: file.stat().st_ctime_ns - 10**12)
    assert not wait_until_settled([file])
    assert wait_until_settled([])
