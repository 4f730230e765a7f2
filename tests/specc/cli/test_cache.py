"""The verb `cache`: what it lists, what it deletes, and what it never touches."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from shell import fits, refused, specc

from specc.cli.cache import CONTENT, DAY
from specc.runtime import disk_cache
from specc.runtime.disk_cache import KINDS, cache_directory

KEY = "0123456789abcdef" * 2


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of caches with two entries: of 1000 bytes now, and of 24 bytes ten days ago."""
    monkeypatch.setenv("SPECC_CACHE", str(tmp_path / "caches"))
    monkeypatch.setenv("COLUMNS", "80")
    (cache_directory("packed", KEY) / "weights.bin").write_bytes(bytes(1000))
    old = cache_directory("checked", "old")
    (old / "stamps.json").write_bytes(bytes(24))
    os.utime(old, (0, time.time() - 10 * DAY))
    return tmp_path / "caches"


def names(json: dict[str, object]) -> list[str]:
    """The names of the entries of a report."""
    entries = json["entries"]
    assert isinstance(entries, list)
    return [Path(entry["path"]).name for entry in entries]


def test_every_kind_of_entry_is_explained() -> None:
    assert set(CONTENT) == set(KINDS)


def test_entries_are_listed_with_kind_size_last_use_and_a_total(root: Path) -> None:
    report = specc("cache", "list", "--json").json
    assert (report["directory"], report["bytes"]) == (str(root), 1024)
    assert [(entry["kind"], entry["bytes"]) for entry in report["entries"]] == [("checked", 24), ("packed", 1000)]
    assert report["entries"][1]["last_use"] == pytest.approx(time.time(), abs=600)
    out = specc("cache", "list").out
    lines = [" ".join(line.split()) for line in out.splitlines()]
    assert "old checked 24 B 10 days ago" in lines
    assert f"{KEY[:16]} packed 1.0 kB now" in lines
    assert "checked 24 B: files whose sha256 was checked" in lines
    assert "total 1.0 kB in " in " ".join(lines)
    fits(out, 80)


def test_entries_of_an_age_are_deleted(root: Path) -> None:
    result = specc("cache", "clean", "--older-than", "7", "--json").json
    assert (names(result), result["dry_run"]) == (["old"], False)
    assert not (root / "checked/old").exists() and (root / "packed" / KEY / "weights.bin").exists()


def test_all_entries_are_deleted(root: Path) -> None:
    assert specc("cache", "clean", "--all").out == "deleted 2 entries, 1.0 kB\n"
    assert disk_cache.entries() == []
    assert f"no entries in {root}" in " ".join(specc("cache", "list").out.split())


def test_a_dry_run_deletes_nothing(root: Path) -> None:
    before = sorted(root.rglob("*"))
    assert specc("cache", "clean", "--older-than", "7", "--dry-run").out == "would delete 1 entry, 24 B\n"
    assert names(specc("cache", "clean", "--all", "--dry-run", "--json").json) == ["old", KEY]
    assert sorted(root.rglob("*")) == before


@pytest.mark.parametrize("argv", [(), ("--all", "--older-than", "3")])
def test_what_to_delete_must_be_said(argv: tuple[str, ...], root: Path) -> None:
    assert refused("cache", "clean", *argv) == (
        "specc cache clean deletes files; give either --all or --older-than DAYS"
    )
    assert len(disk_cache.entries()) == 2


def test_links_are_deleted_and_not_what_they_lead_to(root: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious.txt").write_text("x")
    (root / "packed/link").symlink_to(outside, target_is_directory=True)
    (root / "packed" / KEY / "inner").symlink_to(outside, target_is_directory=True)
    (root / "notes.txt").write_text("x")
    (root / "timing").symlink_to(outside, target_is_directory=True)
    listed = {Path(entry["path"]).name: entry["bytes"] for entry in specc("cache", "list", "--json").json["entries"]}
    assert listed["link"] < 100, "the files behind a link are not counted"
    assert specc("cache", "clean", "--all").status == 0
    assert (outside / "precious.txt").exists() and (root / "notes.txt").exists()
    assert disk_cache.entries() == []


def test_without_a_cache_there_are_no_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECC_CACHE", "off")
    assert specc("cache", "list", "--json").json == {"directory": None, "bytes": 0, "entries": []}
    assert specc("cache", "list").out == "no entries in a cache: it is off\n"
    assert specc("cache", "clean", "--all").out == "deleted 0 entries, 0 B\n"
