"""The index of packed weights is believed only if it fits itself, its key and its files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from specc.runtime.disk_cache import LOCK
from specc.runtime.engines.packed_index import BIN, INDEX, Index
from specc.runtime.stamps import stamp

OTHER_USER = 12345
WEIGHTS = {
    "weights.safetensors 0+8": {"Gather": {"location": BIN, "offset": "0", "length": "8", "prepacked_0": "k|4;7;0"}}
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """An entry that an earlier session filled."""
    directory = tmp_path / "entry"
    directory.mkdir()
    for name in (BIN, "decode.onnx", LOCK):
        (directory / name).write_text(name)
    Index("here", weights=WEIGHTS).write(directory)
    return directory


def test_an_index_of_files_that_did_not_change_is_believed(directory: Path) -> None:
    index = Index.read(directory, "here")
    assert index is not None
    assert index.files == {name: stamp(directory / name) for name in (BIN, "decode.onnx")}
    assert index.weights == WEIGHTS
    assert len(list(directory.iterdir())) == 4


def alter_a_byte(directory: Path) -> None:
    """Leave the size and the time of change as they were."""
    file = directory / BIN
    status = file.stat()
    with file.open("r+b") as f:
        f.write(b"W")
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))


def replace_by_a_link(directory: Path) -> None:
    (directory / BIN).rename(directory.parent / BIN)
    (directory / BIN).symlink_to(directory.parent / BIN)


def edit(change: Callable[[dict[str, Any]], Any], signed: bool) -> Callable[[Path], None]:
    """Return a damage that edits the index, and signs it again if it is to be signed."""

    def damage(directory: Path) -> None:
        data = json.loads((directory / INDEX).read_text())
        change(data)
        if signed:
            del data["sha256"]
            data["sha256"] = hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()
        (directory / INDEX).write_text(json.dumps(data))

    return damage


def set_location(**values: str) -> Callable[[dict[str, Any]], None]:
    return lambda data: data["weights"]["weights.safetensors 0+8"]["Gather"].update(values)


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "changed": lambda d: (d / BIN).write_text("shorter"),
    "a byte altered": alter_a_byte,
    "a link": replace_by_a_link,
    "missing": lambda d: (d / "decode.onnx").unlink(),
    "another user's": lambda d: os.chown(d / BIN, OTHER_USER, -1),
    "not JSON": lambda d: (d / INDEX).write_text("{"),
    "not an index": lambda d: (d / INDEX).write_text("[]"),
    "null": lambda d: (d / INDEX).write_text("null"),
    "deep": lambda d: (d / INDEX).write_text("[" * 100_000),
    "of an older specc": lambda d: (d / INDEX).write_text('{"key": "here", "files": {}, "weights": {}}'),
    "never finished": lambda d: (d / INDEX).unlink(),
    "an offset altered": edit(set_location(offset="1"), signed=False),
    "an offset outside": edit(set_location(offset="4"), signed=True),
    "a negative offset": edit(set_location(offset="-1"), signed=True),
    "a negative length": edit(set_location(length="-1"), signed=True),
    "a packed copy outside": edit(set_location(prepacked_0="k|4;8;0"), signed=True),
    "an offset that is no number": edit(set_location(offset="x"), signed=True),
    "a file elsewhere": edit(lambda d: d["files"].update({"../entry/weights.bin": d["files"][BIN]}), signed=True),
    "a list of files": edit(lambda d: d.update(files=[]), signed=True),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_an_index_that_does_not_fit_is_not_believed(directory: Path, damage: Callable[[Path], Any]) -> None:
    if damage is DAMAGE["another user's"] and os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    damage(directory)
    assert Index.read(directory, "here") is None


def test_an_index_of_another_machine_or_bundle_is_not_believed(directory: Path) -> None:
    assert Index.read(directory, "elsewhere") is None


def test_a_new_index_begins_in_an_empty_entry(directory: Path) -> None:
    (directory / "remnant").mkdir()
    assert Index.begin(directory, "here") == Index("here")
    assert [f.name for f in directory.iterdir()] == [LOCK]


def test_what_a_killed_process_left_is_swept(directory: Path) -> None:
    index = Index.read(directory, "here")
    assert index is not None
    (directory / "tmp123").mkdir()
    (directory / "tmp123/weights.bin").write_text("half")
    (directory / "verify.onnx").write_text("half")
    index.sweep(directory)
    assert sorted(f.name for f in directory.iterdir()) == sorted([LOCK, INDEX, BIN, "decode.onnx"])
    assert Index.read(directory, "here") == index
