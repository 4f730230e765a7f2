"""Packed weights: the index is believed while it matches the files, else all is packed again; failures are told."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from shell import copied, edit_manifest, specc

import specc as package
from specc.runtime.bundle import Bundle, open_bundle
from specc.runtime.engines import packed_weights
from specc.runtime.engines.packed_index import BIN, INDEX, Index
from specc.runtime.engines.packed_weights import cache_key
from specc.runtime.errors import BundleError, SpeccWarning
from specc.runtime.stamps import stamp


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

    @pytest.mark.parametrize("engine", [BIN, "decode.onnx", "prefill.onnx", INDEX])
    def test_one_byte_less_is_noticed(self, bundle: Path, cache: Path, engine: str) -> None:
        files = open_bundle(bundle).manifest.files
        name = f"{files[engine].sha256}.onnx" if engine in files else engine
        whole, tokens = (cache / name).read_bytes(), decoded(bundle)
        os.truncate(cache / name, len(whole) - 1)
        assert decoded(bundle) == tokens
        assert (cache / name).stat().st_size >= len(whole)  # times in the index may take a digit more
        index = Index.read(cache, cache.name)
        assert index is not None and index.files[BIN] == stamp(cache / BIN)

    def test_a_weight_that_is_gathered_and_multiplied_lies_raw_once(self, bundle: Path, cache: Path) -> None:
        """The embedding that is the head too."""
        index = Index.read(cache, cache.name)
        assert index is not None
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
            monkeypatch.setattr(onnxruntime, "__version__", "999.0.1")
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

    def test_an_altered_weight_is_packed_again_and_never_used(self, bundle: Path, cache: Path) -> None:
        """Whatever its time of change says."""
        tokens, status = decoded(bundle), (cache / BIN).stat()
        (cache / BIN).write_bytes(bytes(status.st_size))
        os.utime(cache / BIN, ns=(status.st_atime_ns, status.st_mtime_ns))
        assert decoded(bundle) == tokens
        assert any((cache / BIN).read_bytes())

    def test_a_bundle_cannot_take_the_key_of_another(
        self, bundle: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Neither by a copy of its weights under another name, nor by an engine whose weights nobody hashed."""
        monkeypatch.setenv("SPECC_CACHE", str(tmp_path / "cold"))
        other, _ = self.other(bundle, tmp_path)
        shutil.copy(bundle / "weights.safetensors", other / "copy.safetensors")
        entry = open_bundle(bundle).manifest.files["weights.safetensors"]

        def hide(manifest: dict[str, Any]) -> None:
            del manifest["files"]["weights.safetensors"]
            manifest["files"]["copy.safetensors"] = {"bytes": entry.bytes, "sha256": entry.sha256}
            for holder in (manifest, *manifest["engines"]):
                holder["weights"] = "copy.safetensors"

        edit_manifest(other, hide)
        assert cache_key(open_bundle(other)) != cache.name
        with pytest.raises(BundleError, match=r"weights\.safetensors"):
            decoded(other)
        assert not list((tmp_path / "cold").glob("packed/*/*.onnx"))

    def test_weights_that_change_while_they_are_packed_are_not_kept(
        self, bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The engine is not loaded, and its packed copy is gone."""
        monkeypatch.setenv("SPECC_CACHE", str(tmp_path / "cold"))
        own, pack = copied(bundle, tmp_path), packed_weights._packed_by_runtime

        def altered(file: Path, scratch: Path) -> Any:
            packed = pack(file, scratch)
            weights = own / "weights.safetensors"
            weights.write_bytes(weights.read_bytes()[:-1] + b"x")
            return packed

        monkeypatch.setattr(packed_weights, "_packed_by_runtime", altered)
        with pytest.raises(BundleError, match="was replaced while this session was open; load it again"):
            decoded(own)
        assert not list((tmp_path / "cold").glob("packed/*/*.onnx"))

    def test_a_cache_that_is_too_small_keeps_nothing_and_is_told(
        self, bundle: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tokens = decoded(bundle)
        monkeypatch.setenv("SPECC_CACHE", str(tmp_path / "cold"))
        monkeypatch.setenv("SPECC_CACHE_SIZE", "100K")
        with pytest.warns(SpeccWarning, match="SPECC_CACHE_SIZE allows"):
            assert decoded(copied(bundle, tmp_path)) == tokens
        assert sum(f.stat().st_size for f in (tmp_path / "cold").rglob("*") if f.is_file()) <= 100_000

    def test_the_oldest_entry_makes_room_for_a_new_one(
        self, bundle: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        size = sum(f.stat().st_size for f in cache.iterdir())
        monkeypatch.setenv("SPECC_CACHE_SIZE", str(int(2.5 * size)))
        os.utime(cache, (1, time.time() - 1000))
        for _ in range(3):
            shutil.rmtree(tmp_path / "copy.specc", ignore_errors=True)
            decoded(self.other(bundle, tmp_path)[0])
        assert sum(f.stat().st_size for f in cache.parent.rglob("*") if f.is_file()) <= 2.5 * size

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
