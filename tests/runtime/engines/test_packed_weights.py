"""The index of packed weights: believed while it tells the truth, else all is made again."""

import hashlib
import json
import os
import shutil

import numpy as np
import pytest
from shell import copied, edit_manifest

import specc
from specc.runtime.bundle import open_bundle
from specc.runtime.engines import packed_weights
from specc.runtime.engines.packed_weights import BIN, INDEX, LOCK, _read_index
from specc.runtime.environment import stamp


@pytest.fixture
def directory(tmp_path):
    """What an earlier session left."""
    for name in (BIN, "decode.onnx", LOCK):
        (tmp_path / name).write_text(name)
    index = {
        "key": "mine",
        "files": {name: stamp(tmp_path / name) for name in (BIN, "decode.onnx")},
        "weights": {"a": {}},
        "raw": {},
    }
    (tmp_path / INDEX).write_text(json.dumps(index))
    return tmp_path


def test_an_index_of_files_that_did_not_change_is_kept(directory):
    index = _read_index(directory, "mine")
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
    assert _read_index(directory, "mine") == {"key": "mine", "files": {}, "weights": {}, "raw": {}}
    assert [f.name for f in directory.iterdir()] == [LOCK]


def test_an_index_of_another_machine_or_bundle_is_not_believed(directory):
    assert _read_index(directory, "other") == {"key": "other", "files": {}, "weights": {}, "raw": {}}
    assert [f.name for f in directory.iterdir()] == [LOCK]


@pytest.mark.model
class TestBundle:
    """Whatever the cache holds, a session's tokens are the same, and what was wrong is made again."""

    @pytest.fixture
    def cache(self, bundle, tmp_path, monkeypatch):
        """The bundle's own cache, filled."""
        monkeypatch.setenv("SPECC_CACHE", str(tmp_path / "cache"))
        decoded(bundle)
        (directory,) = (tmp_path / "cache" / "packed").iterdir()
        return directory

    @pytest.mark.parametrize("name", [BIN, "decode.onnx", "prefill.onnx", INDEX])
    def test_one_byte_less_is_noticed(self, bundle, cache, name):
        whole, tokens = (cache / name).read_bytes(), decoded(bundle)
        os.truncate(cache / name, len(whole) - 1)
        assert decoded(bundle) == tokens
        assert (cache / name).stat().st_size >= len(whole)  # times in the index may take a digit more
        assert _read_index(cache, cache.name)["files"][BIN] == stamp(cache / BIN)

    def test_what_is_gathered_and_multiplied_by_lies_raw_once(self, bundle, cache):
        """Not once for each: the embedding that is the head too."""
        index = json.loads((cache / INDEX).read_text())
        by_place = {}
        for key, at in index["weights"].items():
            *place, users = key.split(" ", 2)
            by_place.setdefault(tuple(place), {})[users] = at["offset"]
        assert [set(users) for users in by_place.values() if len(users) > 1] == [{"Gather", "FusedMatMul"}]
        assert all(len(set(offsets.values())) == 1 for offsets in by_place.values())

    @pytest.mark.parametrize("what", ["onnxruntime", "instructions", "bundle"])
    def test_one_made_elsewhere_is_not_read(self, bundle, cache, what, model, tmp_path, monkeypatch):
        """Not even under the name of the right one: a directory that was copied and renamed."""
        tokens = decoded(bundle)
        if what == "onnxruntime":
            monkeypatch.setattr(packed_weights.ort, "__version__", "0.0.1")
        elif what == "instructions":
            monkeypatch.setattr(packed_weights, "_processor", lambda: "flags : sse2")
        else:
            bundle, tokens = self.other(bundle, tmp_path)
        opened = open_bundle(bundle)
        mine = cache.with_name(packed_weights._key(opened))
        assert mine != cache
        shutil.rmtree(mine, ignore_errors=True)
        shutil.copytree(cache, mine, copy_function=shutil.copy2)  # times and sizes as they were
        assert json.loads((mine / INDEX).read_text())["files"][BIN] == stamp(mine / BIN)
        assert decoded(bundle) == tokens
        assert json.loads((mine / INDEX).read_text())["key"] == mine.name

    def other(self, bundle, tmp_path):
        """A bundle of the same shapes and other weights, and what it says without a cache."""
        other = copied(bundle, tmp_path)
        file = other / "weights.safetensors"
        data = bytearray(file.read_bytes())
        start = 8 + int.from_bytes(data[:8], "little")
        numbers = np.frombuffer(data, np.float32, offset=start, count=(len(data) - start) // 4)
        numbers[:] = numbers[::-1].copy()
        file.write_bytes(data)
        told = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        edit_manifest(other, lambda m: m["files"].update({file.name: told}))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SPECC_CACHE", "off")
            return other, decoded(other)


def decoded(bundle):
    return specc.load(bundle).generate("import os", 12, recipe="plain", ignore_eos=True).token_ids
