"""Entries of caches: private to a user, locked for a limited time, bounded in age and in size."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from specc.runtime.disk_cache import (
    LOCK,
    POLICY,
    CachePolicy,
    cache_directory,
    clean,
    drop,
    entries,
    locked_entry,
    make_room,
)
from specc.runtime.environment import CacheOffError
from specc.runtime.errors import BackendError

SHORT = CachePolicy(lock_seconds=0.1)
OTHER_USER = 12345


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPECC_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def entry(key: str, size: int = 100, age: float = 0) -> Path:
    """Make an entry of so many bytes that was last used so many seconds ago."""
    directory = cache_directory("packed", key)
    (directory / "content").write_bytes(b"x" * size)
    os.utime(directory, (time.time() - age,) * 2)
    return directory


def names(directory: Path) -> list[str]:
    return sorted(file.name for file in directory.iterdir())


def test_a_cache_is_a_directory_by_kind_and_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECC_CACHE", str(tmp_path / "here"))
    assert cache_directory("packed", "abc") == tmp_path / "here" / "packed" / "abc"
    monkeypatch.delenv("SPECC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_directory("packed", "abc") == tmp_path / "xdg" / "specc" / "packed" / "abc"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_directory("packed", "abc") == tmp_path / "home" / ".cache" / "specc" / "packed" / "abc"


def test_a_cache_that_is_off_is_an_error_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECC_CACHE", "off")
    with pytest.raises(CacheOffError):
        cache_directory("packed", "abc")


def test_caches_that_nobody_used_for_long_are_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECC_CACHE", str(tmp_path))
    old, recent = cache_directory("packed", "old"), cache_directory("packed", "recent")
    for directory, age in ((old, POLICY.unused_seconds + 60), (recent, POLICY.unused_seconds - 60)):
        os.utime(directory, (time.time() - age,) * 2)
    cache_directory("packed", "new")
    assert sorted(d.name for d in (tmp_path / "packed").iterdir()) == ["new", "recent"]


def test_an_entry_is_private_whatever_the_umask(root: Path) -> None:
    before = os.umask(0)
    try:
        directory = cache_directory("packed", "abc")
    finally:
        os.umask(before)
    assert [stat.S_IMODE(d.stat().st_mode) for d in (root, root / "packed", directory)] == [0o700] * 3


def test_an_older_directory_of_entries_becomes_private(root: Path) -> None:
    (root / "packed").mkdir(parents=True)
    (root / "packed").chmod(0o775)
    cache_directory("packed", "abc")
    assert stat.S_IMODE((root / "packed").stat().st_mode) == 0o700


def open_to_others(directory: Path) -> None:
    directory.chmod(0o777)


def another_users(directory: Path) -> None:
    os.chown(directory, OTHER_USER, OTHER_USER)


def a_link(directory: Path) -> None:
    directory.rename(directory.parent.parent / "elsewhere")
    directory.symlink_to(directory.parent.parent / "elsewhere")


def a_file(directory: Path) -> None:
    shutil.rmtree(directory)
    directory.write_text("a file")


@pytest.mark.parametrize("change", [open_to_others, another_users, a_link, a_file])
def test_a_foreign_entry_is_dropped_and_made_anew(root: Path, change: Callable[[Path], None]) -> None:
    if change is another_users and os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    directory = entry("abc")
    change(directory)
    assert cache_directory("packed", "abc") == directory
    assert names(directory) == [] and not directory.is_symlink() and names(root / "packed") == ["abc"]
    if change is a_link:
        assert names(root / "elsewhere") == ["content"]


@pytest.mark.parametrize("change", [another_users, a_link])
def test_a_foreign_directory_of_entries_is_not_used(root: Path, change: Callable[[Path], None]) -> None:
    if change is another_users and os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    entry("abc")
    change(root / "packed")
    with pytest.raises(PermissionError, match="not a directory of this user"):
        cache_directory("packed", "abc")


def test_a_lock_excludes_others_and_a_shared_one_only_exclusive_ones(root: Path) -> None:
    with locked_entry("packed", "abc"), pytest.raises(TimeoutError), locked_entry("packed", "abc", True, SHORT):
        pytest.fail("was entered")
    with (
        locked_entry("packed", "abc", shared=True),
        locked_entry("packed", "abc", shared=True),
        pytest.raises(TimeoutError, match="another process keeps the lock"),
        locked_entry("packed", "abc", policy=SHORT),
    ):
        pytest.fail("was entered")
    with locked_entry("packed", "abc"), locked_entry("packed", "def"):
        pass


def test_a_lock_is_waited_for(root: Path) -> None:
    order = list[str]()
    entered = threading.Event()

    def work() -> None:
        with locked_entry("packed", "abc"):
            entered.set()
            time.sleep(0.2)
            order.append("first")

    thread = threading.Thread(target=work)
    thread.start()
    entered.wait()
    with locked_entry("packed", "abc"):
        order.append("second")
    thread.join()
    assert order == ["first", "second"]


def test_a_lock_that_is_a_link_is_replaced_and_its_target_kept(root: Path) -> None:
    thesis = root.parent / "thesis.tex"
    thesis.write_text("all of it")
    (entry("abc") / LOCK).symlink_to(thesis)
    with locked_entry("packed", "abc") as directory:
        assert not (directory / LOCK).is_symlink()
    assert thesis.read_text() == "all of it"


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_lock_that_is_no_file_is_replaced(root: Path, make: Callable[[Path], None]) -> None:
    make(entry("abc") / LOCK)
    with locked_entry("packed", "abc") as directory:
        assert (directory / LOCK).is_file()


def test_who_waited_for_a_dropped_entry_gets_a_new_one(root: Path) -> None:
    directory = entry("abc")
    (directory / LOCK).touch()
    rows = os.open(directory / LOCK, os.O_RDWR)
    fcntl.flock(rows, fcntl.LOCK_EX)
    result = list[list[str]]()

    def work() -> None:
        with locked_entry("packed", "abc") as own:
            result.append(names(own))

    thread = threading.Thread(target=work)
    thread.start()
    time.sleep(0.1)
    directory.rename(root / "packed" / ".1.dropped")
    os.close(rows)
    thread.join(10)
    assert result == [[LOCK]]


def test_entries_are_listed_with_kind_size_and_age_the_oldest_first(root: Path) -> None:
    assert entries() == []
    new, old = entry("new", 10), entry("old", 20, age=1000)
    cache_directory("checked", "abc")
    (root / "notes").mkdir()
    listed = entries()
    assert [(e.path, e.kind, e.bytes) for e in listed[:2]] == [(old, "packed", 20), (new, "packed", 10)]
    assert listed[2].kind == "checked" and len(listed) == 3
    assert 990 < time.time() - listed[0].last_use < 1010


def test_a_clean_drops_what_was_not_used_for_long_or_all(root: Path) -> None:
    new, old = entry("new"), entry("old", age=1000)
    assert [e.path for e in clean(unused_seconds=500)] == [old]
    assert names(root / "packed") == ["new"]
    assert [e.path for e in clean()] == [new]
    assert names(root / "packed") == [] and entries() == []


def test_a_clean_leaves_an_entry_in_use(root: Path) -> None:
    with locked_entry("packed", "abc", shared=True):
        assert clean() == [] and names(root / "packed") == ["abc"]


def test_without_a_cache_nothing_is_listed_and_nothing_cleaned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECC_CACHE", "off")
    assert entries() == [] and clean() == []


def test_room_is_made_by_dropping_the_oldest_entries(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    oldest, older, new = (entry(key, 100, age) for key, age in (("a", 3000), ("b", 2000), ("c", 1000)))
    monkeypatch.setenv("SPECC_CACHE_SIZE", "350")
    make_room(50, new)
    assert names(root / "packed") == ["a", "b", "c"]
    make_room(51, oldest)
    assert names(root / "packed") == ["a", "c"] and not older.exists()


def test_what_is_larger_than_all_room_is_refused_and_nothing_dropped(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other, own = entry("a"), entry("b")
    monkeypatch.setenv("SPECC_CACHE_SIZE", "150")
    with pytest.raises(OSError, match="SPECC_CACHE_SIZE allows 0 MiB"):
        make_room(51, own)
    assert other.exists() and own.exists()
    monkeypatch.setenv("SPECC_CACHE_SIZE", "some")
    with pytest.raises(BackendError, match="give bytes"):
        make_room(1, own)


def test_what_a_killed_process_left_of_a_dropped_entry_goes(root: Path) -> None:
    entry("abc").rename(root / "packed" / ".1.dropped")
    cache_directory("packed", "new")
    assert names(root / "packed") == ["new"]
    assert drop(root / "packed" / "new") and drop(root / "packed" / "never")
