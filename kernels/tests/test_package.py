"""The package itself: finding the library, describing it, turning variants off."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import specc_kernels

PRINT_ACTIVE = "import specc_kernels; print(specc_kernels.describe().active)"


def active(disabled: str) -> str:
    """Start a process with variants turned off; returns the one in use there."""
    environment = {**os.environ, "SPECC_KERNELS_DISABLE": disabled}
    return subprocess.run(
        [sys.executable, "-c", PRINT_ACTIVE], env=environment, capture_output=True, text=True, check=True
    ).stdout.strip()


def test_the_library_describes_itself() -> None:
    package = specc_kernels.describe()
    products = {"LinearBF16", "LinearF32", "LinearNBits", "GatherBF16"}
    assert products | {"TreeAttention", "ProjectedAttention", "GatedMLP", "ArgMax"} == set(package.operators)
    assert package.supported[0] == "scalar"
    assert set(package.supported) <= set(package.built)
    assert Path(package.library).is_file()


def test_the_environment_turns_variants_off() -> None:
    *slower, fastest = specc_kernels.variants()
    assert active("") == fastest
    assert active(",".join(specc_kernels.variants())) == "scalar"
    if slower:
        assert active(fastest) == slower[-1]


def test_limit_refuses_what_does_not_run_here() -> None:
    with pytest.raises(ValueError, match="'sse9' is no variant that runs here; give one of scalar"):
        specc_kernels.limit("sse9")


def test_a_missing_library_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("SPECC_KERNELS_LIBRARY", str(tmp_path / "none.so"))
    with pytest.raises(FileNotFoundError, match=r"none\.so does not exist; install specc-kernels again"):
        specc_kernels.library_path()


@pytest.mark.parametrize("length", [0, 63, 4096, -1])
def test_a_damaged_library_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, length: int) -> None:
    damaged = tmp_path / "damaged.so"
    damaged.write_bytes(Path(specc_kernels.library_path()).read_bytes()[:length])
    monkeypatch.setenv("SPECC_KERNELS_LIBRARY", str(damaged))
    with pytest.raises(OSError, match=r"damaged\.so is damaged or not a shared library; install specc-kernels again"):
        specc_kernels.library_path()


def test_a_foreign_library_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECC_KERNELS_LIBRARY", np.random.mtrand.__file__)
    specc_kernels.library.cache_clear()
    with pytest.raises(OSError, match=r"mtrand.*\.so is not the library of specc-kernels; install specc-kernels again"):
        specc_kernels.library()


def test_one_library_registers_with_many_sessions() -> None:
    for _ in range(3):
        ort.SessionOptions().register_custom_ops_library(specc_kernels.library_path())


class ApiBase(ctypes.Structure):
    """ONNX Runtime's entry point, as far as the library reads it."""

    _fields_ = (("get_api", ctypes.c_void_p), ("get_version", ctypes.c_void_p))


def test_an_onnx_runtime_without_the_api_is_refused_in_one_line() -> None:
    """A double of ONNX Runtime 1.16 has API version 1, of which the library uses the first function, and not 17."""
    messages: list[bytes] = []
    version = ctypes.create_string_buffer(b"1.16.3")

    @ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p)
    def create_status(code: int, message: bytes) -> int:
        messages.append(message)
        return 1

    table = (ctypes.c_void_p * 1)(ctypes.cast(create_status, ctypes.c_void_p))

    @ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint32)
    def get_api(number: int) -> int | None:
        return ctypes.addressof(table) if number == 1 else None

    @ctypes.CFUNCTYPE(ctypes.c_void_p)
    def get_version() -> int:
        return ctypes.addressof(version)

    base = ApiBase(ctypes.cast(get_api, ctypes.c_void_p), ctypes.cast(get_version, ctypes.c_void_p))
    register = specc_kernels.library().RegisterCustomOps
    register.restype = ctypes.c_void_p
    assert register(None, ctypes.byref(base)) == 1
    reason = b"specc_kernels needs ONNX Runtime 1.17 or newer, and this is 1.16.3"
    assert messages == [reason + b"; install a newer onnxruntime"]
