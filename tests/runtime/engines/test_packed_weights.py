"""Packed weights: the index is believed while it matches the files, else all is packed again; failures are told."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from shell import copied, edit_manifest, specc

import specc as package
from specc.runtime.bundle import Bundle, open_bundle
from specc.runtime.engines import packed_weights
from specc.runtime.engines.packed_weights import BIN, INDEX, LOCK, Index, cache_key
from specc.runtime.errors import SpeccWarning
from specc.runtime.stamps import stamp


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A directory that an earlier session filled."""
    for name in (BIN, "decode.onnx", LOCK):
        (tmp_path / name).write_text(name)
    Index("here", weights={"weights.safetensors 0+8": {"Gather": {"offset": "0"}}}).write(tmp_path)
    return tmp_path


def test_an_index_of_files_that_did_not_change_is_kept(directory: Path) -> None:
    index = Index.read(directory, "here")
    assert index.files == {name: stamp(directory / name) for name in (BIN, "decode.onnx")}
    assert index.weights == {"weights.safetensors 0+8": {"Gather": {"offset": "0"}}}
    assert len(list(directory.iterdir())) == 4


DAMAGE: dict[str, Callable[[Path], Any]] = {
    "changed": lambda d: (d / BIN).write_text("shorter"),
    "missing": lambda d: (d / "decode.onnx").unlink(),
    "not JSON": lambda d: (d / INDEX).write_text("{"),
    "not an index": lambda d: (d / INDEX).write_text("[]"),
    "of an older specc": lambda d: (d / INDEX).write_text('{"key": "here", "files": {}, "weights": {}, "raw": {}}'),
    "never finished": lambda d: (d / INDEX).unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_an_index_that_does_not_match_the_files_empties_the_directory(
    directory: Path, damage: Callable[[Path], Any]
) -> None:
    (directory / "remnant").mkdir()
    damage(directory)
    assert Index.read(directory, "here") == Index("here")
    assert [f.name for f in directory.iterdir()] == [LOCK]


def test_an_index_of_another_machine_or_bundle_is_not_believed(directory: Path) -> None:
    assert Index.read(directory, "elsewhere") == Index("elsewhere")
    assert [f.name for f in directory.iterdir()] == [LOCK]


def decoded(bundle: Path) -> list[int]:
    return package.load(bundle).generate("import os", 12, recipe="plain", ignore_eos=True).token_ids


@pytest.mark.model
class TestBundle:
    """Whatever the cache holds, a session's tokens are the same, and what was wrong is packed again."""

    @pytest.fixture
    def cache(self, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        """The bundle's own cache, filled."""
        monkeypatch.setenv("SPECC_CACHE", str(tmp_path / "cache"))
        decoded(bundle)
        (directory,) = (tmp_path / "cache" / "packed").iterdir()
        return directory

    @pytest.mark.parametrize("name", [BIN, "decode.onnx", "prefill.onnx", INDEX])
    def test_one_byte_less_is_noticed(self, bundle: Path, cache: Path, name: str) -> None:
        whole, tokens = (cache / name).read_bytes(), decoded(bundle)
        os.truncate(cache / name, len(whole) - 1)
        assert decoded(bundle) == tokens
        assert (cache / name).stat().st_size >= len(whole)  # times in the index may take a digit more
        assert Index.read(cache, cache.name).files[BIN] == stamp(cache / BIN)

    def test_a_weight_that_is_gathered_and_multiplied_lies_raw_once(self, bundle: Path, cache: Path) -> None:
        """The embedding that is the head too."""
        index = Index.read(cache, cache.name)
        shared = [locations for locations in index.weights.values() if len(locations) > 1]
        assert [set(locations) for locations in shared] == [{"Gather", "FusedMatMul"}]
        assert all(len({at["offset"] for at in locations.values()}) == 1 for locations in shared)

    @pytest.mark.parametrize("what", ["onnxruntime", "instructions", "bundle"])
    def test_a_cache_made_elsewhere_is_not_read(
        self, bundle: Path, cache: Path, what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Not even under the right name: a directory that was copied and renamed."""
        tokens = decoded(bundle)
        if what == "onnxruntime":
            monkeypatch.setattr(onnxruntime, "__version__", "0.0.1")
        elif what == "instructions":
            monkeypatch.setattr(packed_weights, "processor", lambda: "flags : sse2")
        else:
            bundle, tokens = self.other(bundle, tmp_path)
        copy = cache.with_name(cache_key(open_bundle(bundle)))
        assert copy != cache
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(cache, copy, copy_function=shutil.copy2)
        assert decoded(bundle) == tokens
        assert json.loads((copy / INDEX).read_text())["key"] == copy.name

    def other(self, bundle: Path, tmp_path: Path) -> tuple[Path, list[int]]:
        """Return a bundle of the same shapes and other weights, and its tokens without a cache."""
        other = copied(bundle, tmp_path)
        file = other / "weights.safetensors"
        data = bytearray(file.read_bytes())
        start = 8 + int.from_bytes(data[:8], "little")
        numbers = np.frombuffer(data, np.float32, offset=start, count=(len(data) - start) // 4)
        numbers[:] = numbers[::-1].copy()
        file.write_bytes(data)
        entry = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        edit_manifest(other, lambda m: m["files"].update({file.name: entry}))
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SPECC_CACHE", "off")
            return other, decoded(other)


@pytest.mark.model
class TestFailure:
    """Engines run without packed weights, in more memory; the user hears of it once."""

    @pytest.fixture
    def own(self, bundle: Path, tmp_path: Path) -> Path:
        """A bundle of which nobody has been warned."""
        return copied(bundle, tmp_path)

    @pytest.fixture
    def fails(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        """A disk without room."""

        def full(bundle: Bundle, *_: Any) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setenv("SPECC_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(packed_weights, "_pack", full)

    @pytest.mark.usefixtures("fails")
    def test_one_warning_names_the_reason_and_the_remedy(
        self, bundle: Path, own: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.warns(SpeccWarning) as warned:
            tokens = decoded(own)
            package.load(own).engines.load("prefill", "decode", "verify-early-exit", "draft-early-exit")
        (line,) = [str(w.message) for w in warned]
        assert line.startswith(f"{own}: engines do not share packed weights ([Errno 28] No space left on device), so ")
        assert line.endswith("let SPECC_CACHE name a directory with room, or be off") and "\n" not in line
        monkeypatch.setenv("SPECC_CACHE", "off")
        assert tokens == decoded(bundle)

    @pytest.mark.usefixtures("fails")
    def test_the_command_line_says_it_in_one_line(self, own: Path) -> None:
        result = specc("generate", own, "--prompt", "import os", "--max-new-tokens", 2)
        assert result.status == 0 and result.err.count("specc: warning: ") == 1, result.err

    def test_a_cache_that_is_off_is_no_reason_to_warn(self, own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SPECC_CACHE", "off")
        with warnings.catch_warnings():
            warnings.simplefilter("error", SpeccWarning)
            decoded(own)

    @pytest.mark.usefixtures("fails")
    def test_an_engine_that_loads_in_no_way_is_an_error_without_a_warning(self, own: Path) -> None:
        opened = open_bundle(own)
        (own / "decode.onnx").write_bytes(b"rust")
        with warnings.catch_warnings():
            warnings.simplefilter("error", SpeccWarning)
            with pytest.raises(Exception, match=r"decode\.onnx"):
                packed_weights.session(opened, opened.engine("decode"), onnxruntime.SessionOptions())
