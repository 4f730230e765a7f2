"""Execution providers: parts of ONNX Runtime and plug-ins, which a double stands for."""

from __future__ import annotations

import importlib.util
import re
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime as ort
import pytest
from doubles.onnx_runtime import PlugIn

from specc.runtime.device import PROVIDERS, Device
from specc.runtime.engines import ort_providers
from specc.runtime.engines.ort_providers import missing, provider_session, register, require
from specc.runtime.errors import BackendError
from specc.runtime.extras import package

RTX, OPENVINO = Device("cuda", "nv-tensorrt-rtx"), Device(provider="openvino")


def test_asking_what_is_missing_registers_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = PlugIn(monkeypatch, RTX, "GPU")
    assert "finds no device" in missing(RTX.runs) and plugin.registered == []
    register(RTX.runs)
    assert missing(RTX.runs) == ""


def test_a_plug_in_is_registered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = PlugIn(monkeypatch, RTX, "GPU")
    for _ in range(2):
        assert require(RTX) is RTX.runs
    assert plugin.registered == [("NvTensorRTRTXExecutionProvider", "plug-in.so")]


def test_a_part_of_onnx_runtime_is_never_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = PlugIn(monkeypatch, RTX, "GPU")
    register(PROVIDERS["cpu"])
    assert plugin.registered == [] and missing(PROVIDERS["cpu"]) == ""


def test_a_plug_in_without_a_device_of_its_kind_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = PlugIn(monkeypatch, RTX, "CPU")
    with pytest.raises(BackendError) as e:
        require(RTX)
    assert str(e.value) == f"{plugin.title} finds no device that it runs on; take another provider"


def test_a_plug_in_that_does_not_load_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(title: str, library: str) -> None:
        raise RuntimeError("Failed to load library plug-in.so: libcuda.so.1: cannot open it\nat environment.cc")

    PlugIn(monkeypatch, RTX, "GPU")
    monkeypatch.setattr(ort, "register_execution_provider_library", refuse)
    with pytest.raises(
        BackendError,
        match=r"does not load: Failed .*libcuda.so.1.* it; install its device's driver, or pip install .*\[nv-",
    ):
        register(RTX.runs)


def test_a_provider_that_is_not_installed_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    for device, extra in ((OPENVINO, "openvino"), (Device("cuda"), "gpu")):
        with pytest.raises(
            BackendError, match=f"has no {device.runs.title}, only CPU.*install {re.escape(package(extra))} in an"
        ):
            require(device)


@pytest.mark.parametrize("provider_used", ["OpenVINOExecutionProvider", "CPUExecutionProvider"])
def test_a_plug_in_is_asked_for_by_its_device_and_must_run_something(
    provider_used: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its name ONNX Runtime would leave everything to the CPU, and say nothing; so too with unknown options."""
    session = SimpleNamespace(get_provider_graph_assignment_info=lambda: [SimpleNamespace(ep_name=provider_used)])
    plugin = PlugIn(monkeypatch, OPENVINO, "GPU CPU")
    monkeypatch.setattr(ort_providers, "InferenceSession", lambda path, options: session)
    monkeypatch.setenv("SPECC_OPENVINO_PRECISION", "bf16")
    if provider_used == "CPUExecutionProvider":
        with pytest.raises(BackendError, match=r"OpenVINOExecutionProvider runs no node of .*take another provider$"):
            provider_session(tmp_path / "verify.onnx", OPENVINO)
    else:
        assert provider_session(tmp_path / "verify.onnx", OPENVINO) is session
    hints = '{"CPU": {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": "1"}}'
    assert plugin.sessions == [(plugin.devices[1:], {"load_config": hints})]


def test_a_wrong_precision_is_refused_before_a_session_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugin = PlugIn(monkeypatch, OPENVINO, "CPU")
    monkeypatch.setenv("SPECC_OPENVINO_PRECISION", "int8")
    with pytest.raises(BackendError, match="SPECC_OPENVINO_PRECISION is 'int8'; give f32 or bf16"):
        provider_session(tmp_path / "verify.onnx", OPENVINO)
    assert plugin.sessions == []


def cuda_here(monkeypatch: pytest.MonkeyPatch, loads: str = "CUDAExecutionProvider") -> list[Any]:
    """Put an ONNX Runtime with CUDA in place, whose sessions run on `loads`; return the providers that it is given."""
    requests: list[Any] = []

    def make(path: str, options: object, providers: list[Any]) -> Any:
        requests.append(providers)
        return SimpleNamespace(get_providers=lambda: [loads, "CPUExecutionProvider"])

    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(ort_providers, "InferenceSession", make)
    return requests


@pytest.mark.parametrize("graphs", [True, False])
def test_a_session_on_cuda_computes_in_fp32_and_is_asked_to_capture_only_if_it_should(
    graphs: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    requests = cuda_here(monkeypatch)
    provider_session(tmp_path / "verify.onnx", Device("cuda"), graphs)
    settings = {"use_tf32": "0"} | ({"enable_cuda_graph": "1"} if graphs else {})
    assert requests == [[("CUDAExecutionProvider", settings), "CPUExecutionProvider"]]


def test_a_session_that_onnx_runtime_put_on_the_cpu_in_place_of_cuda_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda_here(monkeypatch, loads="AzureExecutionProvider")
    with pytest.raises(BackendError, match=r"^CUDAExecutionProvider does not load: .*; install NVIDIA's driver"):
        provider_session(tmp_path / "verify.onnx", Device("cuda"))


def test_a_library_of_cuda_that_is_missing_is_named_and_nothing_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cuda_here(monkeypatch)
    monkeypatch.setattr(ort, "preload_dlls", lambda: print("Failed to load libcublas.so.13: no such file\nSee a page"))
    with pytest.raises(
        BackendError, match=r"^CUDAExecutionProvider does not load: Failed to load libcublas.so.13: no "
    ):
        require(Device("cuda"))
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(ort, "preload_dlls", lambda: None)
    assert require(Device("cuda")) is PROVIDERS["cuda"]


def test_threads_that_load_the_libraries_of_cuda_at_once_leave_standard_output_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cuda_here(monkeypatch)
    first, second = threading.Event(), threading.Event()

    def preload() -> None:
        if not first.is_set():
            first.set()
            second.wait(0.2)  # Without a lock the second thread comes in here, and finds the first one's output.
            return
        second.set()
        time.sleep(0.05)  # The first thread has put back what it found.

    monkeypatch.setattr(ort, "preload_dlls", preload)
    before = sys.stdout
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(require, [Device("cuda")] * 2))
    assert first.is_set() and second.is_set() and sys.stdout is before
