"""The index of packed weights: believed while it tells the truth, else all is made again."""

import json

import pytest

from specc.runtime.engines.packed import BIN, INDEX, LOCK, _read_index
from specc.runtime.machine import stamp


@pytest.fixture
def directory(tmp_path):
    """What an earlier session left."""
    for name in (BIN, "decode.onnx", LOCK):
        (tmp_path / name).write_text(name)
    index = {"files": {name: stamp(tmp_path / name) for name in (BIN, "decode.onnx")}, "weights": {"a": {}}}
    (tmp_path / INDEX).write_text(json.dumps(index))
    return tmp_path


def test_an_index_of_files_that_did_not_change_is_kept(directory):
    index = _read_index(directory)
    assert sorted(index["files"]) == ["decode.onnx", BIN] and index["weights"] == {"a": {}}
    assert len(list(directory.iterdir())) == 4


@pytest.mark.parametrize(
    "damage",
    [
        lambda d: (d / BIN).write_text("shorter"),
        lambda d: (d / "decode.onnx").unlink(),
        lambda d: (d / INDEX).write_text("{"),
        lambda d: (d / INDEX).write_text("[]"),
        lambda d: (d / INDEX).unlink(),
    ],
    ids=["changed", "missing", "no JSON", "no index", "never finished"],
)
def test_an_index_that_does_not_tell_the_truth_empties_the_directory(directory, damage):
    damage(directory)
    assert _read_index(directory) == {"files": {}, "weights": {}}
    assert [f.name for f in directory.iterdir()] == [LOCK]
