"""Execution providers of ONNX Runtime: parts of it, or plug-ins that are packages of their own."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import json
import threading
from pathlib import Path

from ..device import Device, Provider
from ..environment import openvino_precision
from ..errors import BackendError, backend_errors
from ..extras import package
from .onnx_runtime import InferenceSession, ort
from .ort_cpu import session_options

CUDA = "install NVIDIA's driver, and the libraries that the provider needs: pip install onnxruntime-gpu[cuda,cudnn]"
# By provider: its settings. The CUDA provider rounds the factors of fp32 products to 10 bits (TF32) unless told not to.
SETTINGS = {"CUDAExecutionProvider": {"use_tf32": "0"}}
_stdout_lock = threading.Lock()  # A thread takes it before it redirects standard output.


def register(provider: Provider) -> None:
    """Make a plug-in known to ONNX Runtime, if its package is installed and it is not known yet.

    Call it from one thread, before sessions are loaded. For a provider that is a part of ONNX Runtime and runs on a
    GPU, it loads CUDA's libraries, which pip puts where the system does not look for them.

    Raises:
        BackendError: the plug-in's library, or one of CUDA's, does not load.
    """
    if provider.device == "cuda" and provider.title in ort.get_available_providers():
        if reason := load_cuda():
            raise BackendError(f"{provider.title} does not load: {reason}; {CUDA}")
        return
    if not provider.plugin or not importlib.util.find_spec(provider.plugin) or devices(provider):
        return
    remedy = f"install its device's driver, or pip install {package(provider.extra)}"
    with backend_errors(lambda error: f"{provider.title} does not load: {error}; {remedy}"):
        library = importlib.import_module(provider.plugin).get_library_path()
        ort.register_execution_provider_library(provider.title, library)


def load_cuda() -> str:
    """Load CUDA's libraries for ONNX Runtime; return its words on the first that it needs and cannot load, or nothing.

    A package of CUDA is looked for beside ONNX Runtime's, and then where the system looks. ONNX Runtime prints its
    words, so standard output is another one meanwhile. Engines are loaded by several threads, and two that changed it
    at once could leave it so: each puts back what it found.
    """
    with _stdout_lock, contextlib.redirect_stdout(io.StringIO()) as printed:
        ort.preload_dlls()
    return next((line for line in printed.getvalue().splitlines() if line.startswith("Failed to load")), "")


def missing(provider: Provider) -> str:
    """Say what a provider lacks here, with the remedy; the text is empty if it can run.

    It changes nothing: a plug-in must have been registered before.
    """
    if provider.plugin and importlib.util.find_spec(provider.plugin):
        return "" if devices(provider) else f"{provider.title} finds no device that it runs on; take another provider"
    available = ort.get_available_providers()
    if provider.title in available:
        return ""
    return (
        f"this ONNX Runtime has no {provider.title}, only {', '.join(available)}; "
        f"pip install {package(provider.extra)} in an environment of its own"
    )


def require(device: Device) -> Provider:
    """Register the device's provider and return it.

    Raises:
        BackendError: it cannot run here.
    """
    register(device.runs)
    if reason := missing(device.runs):
        raise BackendError(reason)
    return device.runs


def devices(provider: Provider) -> list[ort.OrtEpDevice]:
    """Return the devices that a plug-in has registered; none for a provider that is a part of ONNX Runtime."""
    if not provider.plugin:
        return []
    kinds = ort.OrtHardwareDeviceType
    kind = kinds.CPU if provider.device == "cpu" else kinds.GPU
    return [d for d in ort.get_ep_devices() if d.ep_name == provider.title and d.device.type == kind]


def provider_session(file: Path, device: Device, graphs: bool = False) -> InferenceSession:
    """Load a file on the device's provider. Nodes that the provider lacks run on the CPU.

    Args:
        file: an ONNX file.
        device: where it runs.
        graphs: capture the launches of a run as one CUDA graph.

    Raises:
        BackendError: the provider is missing, or would run nothing of the file.
    """
    provider, options = require(device), session_options(device=device)
    settings = SETTINGS.get(provider.title, {}) | ({"enable_cuda_graph": "1"} if graphs else {})
    gpus = devices(provider)
    if not gpus:
        session = InferenceSession(str(file), options, providers=[(provider.title, settings), "CPUExecutionProvider"])
        if provider.title not in session.get_providers():  # ONNX Runtime then takes the CPU without an error
            raise BackendError(f"{provider.title} does not load: ONNX Runtime gives no reason; {CUDA}")
        return session
    # Once a plug-in is registered, ONNX Runtime also lists it among its own providers. If it is asked for by that name,
    # ONNX Runtime ignores it without a word. So it is asked for by its device, and must then run something.
    if provider.title == "OpenVINOExecutionProvider":
        settings = {"load_config": json.dumps({"CPU": openvino_settings(device)})}
    options.add_provider_for_devices(gpus[:1], settings)
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = InferenceSession(str(file), options)
    if provider.title not in {part.ep_name for part in session.get_provider_graph_assignment_info()}:
        raise BackendError(f"{provider.title} runs no node of {file}; take another provider")
    return session


def openvino_settings(device: Device) -> dict[str, str]:
    """Return what OpenVINO's plug-in is told: the type that it computes in, and its threads.

    Raises:
        BackendError: an environment variable has a wrong value.
    """
    return {"INFERENCE_PRECISION_HINT": openvino_precision(), "INFERENCE_NUM_THREADS": str(device.engine_threads)}
