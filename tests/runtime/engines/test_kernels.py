"""The library of specc-kernels, as the runtime finds it: there, missing, old, damaged, or of another ONNX Runtime."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from shell import copied, edit_manifest, refused
from small_bundle import MANIFEST

from specc.runtime.bundle import Bundle
from specc.runtime.device import Device
from specc.runtime.engines import kernels
from specc.runtime.engines import ort as backend
from specc.runtime.engines.session_cache import SessionCache
from specc.runtime.errors import BackendError
from specc.runtime.extras import package
from specc.runtime.manifest import EngineSpec

NEEDS = {"specc::LinearBF16": "0.1.0", "specc::TreeAttention": "0.1.0"}
REMEDY = f"pip install {re.escape(package('kernels'))}"
REWRITE = "; or rewrite the bundle: specc export --standard BUNDLE -o OUT$"


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
    with pytest.raises(BackendError, match=line + REMEDY + REWRITE):
        kernels.require(engine(NEEDS))


def test_a_module_without_a_package_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch)

    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(kernels, "version", missing)
    with pytest.raises(BackendError, match="specc-kernels is not installed; " + REMEDY + "$"):
        kernels.library()


@pytest.mark.parametrize("version", ["0.1.0", "0.9", "0.9.1rc1"])
def test_an_older_library_is_named_with_the_operator_that_it_lacks(
    version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, version)
    line = rf"needs the operator LinearBF16 of specc-kernels 0\.10\.0 or newer, and here is {version}; upgrade it: "
    with pytest.raises(BackendError, match=line + REMEDY + "$"):
        kernels.require(engine({"specc::LinearBF16": "0.10.0"}))


def test_a_processor_without_a_variant_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch, supported=("scalar",), active="scalar")
    line = r"specc-kernels 0\.1\.0 was built for scalar, avx2, avx512, and only the variant scalar is in use"
    with pytest.raises(BackendError, match=line + ".* or use a processor with AVX2 or NEON" + REWRITE):
        kernels.require(engine(NEEDS))
    assert kernels.library().variants == ("scalar",)


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


@pytest.fixture
def installed() -> Any:
    """The package specc_kernels."""
    return pytest.importorskip("specc_kernels", reason="specc-kernels is not built; pip install ./kernels")


@pytest.fixture
def kernel_bundle(installed: Any, bundle: Path, tmp_path: Path) -> Path:
    """A bundle whose engines need an operator of the library. None of the tests comes to run it."""

    def edit(data: dict[str, Any]) -> None:
        for spec in data["engines"]:
            spec["needs"]["specc::LinearNBits"] = "0.1.0"

    return edit_manifest(copied(bundle, tmp_path), edit)


@pytest.fixture
def reference_alone(installed: Any) -> Iterator[None]:
    """A processor that runs no variant but the reference, as SPECC_KERNELS_DISABLE makes of this one."""
    fastest = installed.describe().active
    installed.limit("scalar")
    yield
    installed.limit(fastest)


@pytest.mark.model
def test_the_command_line_names_a_processor_without_a_variant(kernel_bundle: Path, reference_alone: None) -> None:
    line = refused("generate", kernel_bundle, "--prompt", "x")
    assert "only the variant scalar is in use, which is many times slower; unset SPECC_KERNELS_DISABLE" in line
    assert line.endswith("or rewrite the bundle: specc export --standard BUNDLE -o OUT")


@pytest.mark.model
def test_the_command_line_names_an_operator_that_the_library_lacks(kernel_bundle: Path) -> None:
    lacks = {"specc::LinearFP8": "0.9.0"}
    edit_manifest(kernel_bundle, lambda data: [spec["needs"].update(lacks) for spec in data["engines"]])
    line = refused("generate", kernel_bundle, "--prompt", "x")
    assert "needs the operator LinearFP8 of specc-kernels 0.9.0 or newer, and here is" in line
    assert "upgrade it: pip install" in line


@pytest.mark.model
@pytest.mark.parametrize("kind", ["corrupted", "foreign", "text"])
def test_the_command_line_names_a_library_that_is_not_the_one(
    kind: str, installed: Any, kernel_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "other.so"
    if kind == "foreign":
        file = Path(str(np.random.mtrand.__file__))
    else:
        file.write_bytes(Path(installed.library_path()).read_bytes()[:5000] if kind == "corrupted" else b"text")
    monkeypatch.setattr(installed, "library", installed.library.__wrapped__)  # without the one that is loaded
    monkeypatch.setenv("SPECC_KERNELS_LIBRARY", str(file))
    line = refused("generate", kernel_bundle, "--prompt", "x")
    reason = "is not the library of specc-kernels" if kind == "foreign" else "is damaged or not a shared library"
    assert f"{file} {reason}; install specc-kernels again, or unset SPECC_KERNELS_LIBRARY" in line


OTHER_API = """
typedef struct { void* const* (*get_api)(unsigned); } base;
const char* specc_kernels_operators(void) { return "LinearNBits"; }
const char* specc_kernels_variants(int supported) { return "scalar,avx2"; }
const char* specc_kernels_active(void) { return "avx2"; }
int specc_kernels_limit(const char* name) { return 0; }
void* RegisterCustomOps(void* options, const base* ort) {
  if (ort->get_api(9999)) return 0;
  void* (*create_status)(int, const char*) = (void* (*)(int, const char*))ort->get_api(1)[0];
  return create_status(2, "it needs version 9999 of the API");
}
"""


@pytest.mark.model
@pytest.mark.process
def test_the_command_line_names_a_library_for_another_api_version(
    installed: Any, kernel_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The double of the library asks ONNX Runtime for a version of its API that is not there yet."""
    if not shutil.which("cc"):
        pytest.skip("no C compiler; apt install gcc")
    source, library = tmp_path / "other.c", tmp_path / "other.so"
    source.write_text(OTHER_API)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    monkeypatch.setattr(installed, "library", installed.library.__wrapped__)
    monkeypatch.setenv("SPECC_KERNELS_LIBRARY", str(library))
    line = refused("generate", kernel_bundle, "--prompt", "x")
    assert f"does not fit ONNX Runtime {ort.__version__}: " in line
    assert "it needs version 9999 of the API" in line and "upgrade both: pip install -U onnxruntime" in line
