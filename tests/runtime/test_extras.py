"""Error messages tell pip to install from the folder that specc came from, or else from an index."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from specc.runtime import extras


class Installed:
    """A distribution with some notes."""

    def __init__(self, notes: str | None) -> None:
        self.notes = notes

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return self.notes


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    extras._source.cache_clear()
    yield
    extras._source.cache_clear()


def install(monkeypatch: pytest.MonkeyPatch, *notes: str | None) -> None:
    """Let distributions with these notes be installed."""
    monkeypatch.setattr("importlib.metadata.Distribution.discover", lambda name: list(map(Installed, notes)))


def from_folder(folder: Path, **info: bool) -> str:
    return json.dumps({"url": folder.as_uri(), "dir_info": info})


@pytest.mark.parametrize(
    "notes",
    [
        None,
        "{",
        "[]",
        json.dumps({"url": "https://host/specc.whl", "archive_info": {}}),
        json.dumps({"url": "file:///no/such/folder", "dir_info": {}}),
    ],
)
def test_without_a_folder_the_name_of_the_index_is_meant(notes: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, notes)
    assert extras.package("compile") == "specc-compiler[compile]"
    assert extras.package("kernels") == "specc-compiler[kernels]"


def test_a_clone_is_named_as_a_shell_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clone = tmp_path / "a clone"
    clone.mkdir()
    install(monkeypatch, None, from_folder(clone, editable=True))  # The first is what a build left in the clone.
    assert extras.package("compile") == f"-e '{clone}[compile]'"
    assert extras.package("kernels") == f"'{clone}/kernels'"


def test_a_copy_of_a_folder_is_no_editable_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, from_folder(tmp_path))
    assert extras.package("compile") == f"'{tmp_path}[compile]'"
