"""Test what is read of a TensorRT library: of a double, and of the real one if it is installed. No GPU is needed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from doubles.tensorrt import ILogger

from specc.runtime.engines.tensorrt_library import (
    NO_REASON,
    UNSUPPORTED,
    listener,
    named_capabilities,
    remedy,
    without_name,
)

NAMES: dict[str, Any] = {"NONE": 0, "CURRENT": 1, "SM75": 2, "SM89": 3, "SM120": 4}


def library() -> Any:
    capability = SimpleNamespace(__members__=NAMES)
    return SimpleNamespace(__name__="trt", __version__="1.7", ComputeCapability=capability, ILogger=ILogger)


def test_only_names_of_one_gpu_count() -> None:
    names: dict[str, Any] = {**named_capabilities(library())}
    assert names == {"7.5": 2, "8.9": 3, "12.0": 4}


@pytest.mark.parametrize(("capability", "runs"), [("8.9", True), ("13.0", True), ("9.0", False), ("7.0", False)])
def test_a_gpu_without_a_name_may_run_only_if_it_is_newer_than_all_that_have_one(capability: str, runs: bool) -> None:
    text = without_name(library(), capability)
    assert text == ("" if runs else f"trt 1.7 has no '{capability}'; it has 7.5, 8.9, 12.0")


def test_a_listener_keeps_the_last_error_in_one_line() -> None:
    log = listener(library())
    assert log.last == NO_REASON
    for severity, message in ((ILogger.Severity.ERROR, "a\nb"), (ILogger.Severity.WARNING, "c")):
        log.log(severity, message)
    assert log.last == "a b"


def test_the_library_itself_tells_a_listener_why_it_loads_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    trt: Any = pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed")
    log = listener(trt)
    assert trt.Runtime(log).deserialize_cuda_engine(b"no engine" * 100) is None
    assert "Error Code" in log.last and "\n" not in log.last
    assert capfd.readouterr() == ("", "")


def test_a_compile_is_advised_only_where_one_helps() -> None:
    assert remedy("the magic tag does not match") == "compile the bundle again here"
    assert "no compile for this GPU helps" in remedy(f"TensorRT-RTX {UNSUPPORTED}, so")
