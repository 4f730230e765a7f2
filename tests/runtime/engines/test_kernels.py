"""The library of specc-kernels, as the runtime finds it: there, missing, old, damaged, or of another ONNX Runtime."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime as ort
import pytest
from small_bundle import MANIFEST

from specc.runtime.bundle import Bundle
from specc.runtime.device import Device
from specc.runtime.engines import kernels
from specc.runtime.engines import ort as backend
from specc.runtime.engines.session_cache import SessionCache
from specc.runtime.errors import BackendError
from specc.runtime.manifest import EngineSpec

NEEDS = {"specc::LinearBF16": "0.1.0", "specc::TreeAttention": "0.1.0"}
REMEDY = r"pip install specc-compiler\[kernels\], or from a clone of specc: pip install \./kernels$"


def engine(needs: Mapping[str, str]) -> EngineSpec:
    return replace(MANIFEST.engines[0], needs=needs)


def install(monkeypatch: pytest.MonkeyPatch, version: str = "0.1.0", **changes: Any) -> None:
    """Install a double of the package."""
    about = {
        "library": "/none.so",
        "operators": ("LinearBF16", "TreeAttention"),
        "built": ("scalar", "avx2", "avx512"),
        "supported": ("scalar", "avx2"),
        "active": "avx2",
    }
    module: Any = SimpleNamespace(describe=lambda: SimpleNamespace(**about | changes))
    monkeypatch.setitem(sys.modules, "specc_kernels", module)
    monkeypatch.setattr(kernels, "version", lambda name: version)


def test_an_engine_without_such_operators_needs_no_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "specc_kernels", None)
    kernels.require(engine({}))
    kernels.require(engine({"tensorrt": "10.0"}))
    assert not kernels.needed(engine({"tensorrt": "10.0"})) and kernels.needed(engine(NEEDS))


def test_a_library_of_the_right_version_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    kernels.require(engine(NEEDS))
    here = kernels.library()
    assert (here.version, here.active, here.variants) == ("0.1.0", "avx2", ("scalar", "avx2"))


def test_a_missing_library_is_one_line_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "specc_kernels", None)  # what Python takes for a module that is not there
    line = (
        r"engine decode has operators of specc-kernels \(LinearBF16, TreeAttention\): specc-kernels is not installed; "
    )
    with pytest.raises(BackendError, match=line + REMEDY):
        kernels.require(engine(NEEDS))


def test_a_module_without_a_package_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(kernels, "version", missing)
    with pytest.raises(BackendError, match="specc-kernels is not installed; " + REMEDY):
        kernels.library()


@pytest.mark.parametrize("version", ["0.1.0", "0.9", "0.9.1rc1"])
def test_an_older_library_is_named_with_the_operator_that_it_lacks(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, version)
    line = rf"needs the operator LinearBF16 of specc-kernels 0\.10\.0 or newer, and here is {version}; upgrade it: "
    with pytest.raises(BackendError, match=line + REMEDY):
        kernels.require(engine({"specc::LinearBF16": "0.10.0"}))


def test_a_newer_library_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, "0.10.0")
    kernels.require(engine({"specc::LinearBF16": "0.9.2"}))


def test_an_operator_that_the_library_lacks_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)
    with pytest.raises(BackendError, match="needs the operator LinearFP8 of specc-kernels"):
        kernels.require(engine({"specc::LinearFP8": "0.1.0"}))


def test_a_damaged_library_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged() -> None:
        raise OSError("/x.so is damaged or not a shared library; install specc-kernels again")

    install(monkeypatch)
    monkeypatch.setattr(sys.modules["specc_kernels"], "describe", damaged)
    with pytest.raises(BackendError, match=r"specc-kernels 0\.1\.0 does not load: /x\.so is damaged") as e:
        kernels.library()
    assert "\n" not in str(e.value)


def test_a_library_for_another_onnx_runtime_is_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """ONNX Runtime itself refuses a file without the entry for custom operators."""
    file = tmp_path / "other.so"
    file.write_bytes(b"no library")
    install(monkeypatch, library=str(file))
    line = rf"specc-kernels 0\.1\.0 does not fit ONNX Runtime {ort.__version__}: .*other\.so.*upgrade both"
    with pytest.raises(BackendError, match=line) as e:
        kernels.register(ort.SessionOptions())
    assert "\n" not in str(e.value)


def test_another_provider_than_the_cpus_own_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from specc.runtime.engines.ort_cpu import HostKV
    from specc.runtime.manifest import CacheSpec

    install(monkeypatch)
    no_manifest: Any = None
    bundle, rows = Bundle(tmp_path, no_manifest), HostKV(CacheSpec(8, {"0": (1, 16)}))
    with pytest.raises(BackendError, match="run on ONNX Runtime's own CPU provider and not on openvino; leave out"):
        backend.load(bundle, engine(NEEDS), rows, Device(provider="openvino"), SessionCache())


def test_the_package_that_is_installed_here_is_found_and_registers() -> None:
    pytest.importorskip("specc_kernels", reason="specc-kernels is not built; pip install ./kernels")
    here = kernels.library()
    assert {"LinearBF16", "LinearF32", "LinearNBits", "GatherBF16", "TreeAttention"} <= set(here.operators)
    assert here.active in here.variants
    kernels.register(ort.SessionOptions())
