"""Engines of the `onnx` backend: ONNX Runtime on the CPU, inputs and outputs bound once, caches in place.

Other devices are in ort_device.py.
"""

from __future__ import annotations

import importlib.util
import json
import os
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from weakref import WeakValueDictionary

import numpy as np
import onnxruntime as ort
from onnxruntime import InferenceSession  # here, so that a package of which only a part is left is told at once

from ..bundle import Bundle
from ..device import CPU, Device, Provider
from ..environment import threads
from ..errors import BackendError, first_line
from ..manifest import CacheSpec, EngineSpec
from . import packed_weights
from .ort_device import DeviceKV, DeviceRunner, captures, free, uncaptured

DTYPES = {"int64": np.int64, "float": np.float32, "float32": np.float32, "bool": np.bool_, "int32": np.int32,
          "float16": np.float16}  # fmt: skip
SPIN = "80"  # microseconds: what passes between two steps; ONNX Runtime's own 50 ms take a core from whoever runs next


class HostKV:
    """The rows of one cache: for each shape of a layer's keys, one array [tensors, heads, capacity, size].

    `values` are its tensors by name, as the engines bind them. `sessions` are those of the engines, by file and
    threads: one whose slots have no number serves chains of several widths.
    """

    def __init__(self, spec: CacheSpec) -> None:
        self.capacity = spec.capacity
        by_shape: defaultdict[tuple[int, int], list[str]] = defaultdict(list)
        for layer, shape in spec.layers.items():
            by_shape[shape[0], shape[1]] += [f"{layer}.key", f"{layer}.value"]
        self.arrays: list[np.ndarray] = []
        self.values: dict[str, ort.OrtValue] = {}
        for (heads, size), names in by_shape.items():
            array: np.ndarray = np.zeros((len(names), heads, spec.capacity, size), DTYPES[spec.dtype])
            self.arrays.append(array)
            for i, name in enumerate(names):
                self.values[name] = ort.OrtValue.ortvalue_from_numpy(array[i : i + 1])
        self.sessions: WeakValueDictionary[tuple[str, int], InferenceSession] = WeakValueDictionary()

    def move(self, start: int, rows: Sequence[int]) -> None:
        for array in self.arrays:
            for to, row in enumerate(rows, start):
                if to != row:
                    array[:, :, to] = array[:, :, row]


class OrtRunner:
    """A session whose every input and output has its place; `present.*` is `past_key_values.*` itself."""

    def __init__(self, session: InferenceSession, spec: EngineSpec, rows: HostKV) -> None:
        self.session = session
        self.binding = session.io_binding()
        self.inputs: dict[str, np.ndarray] = {}
        self.outputs: dict[str, np.ndarray] = {}
        self._bound: list[ort.OrtValue] = []
        for tensors, arrays, bind in (
            (spec.inputs, self.inputs, self.binding.bind_ortvalue_input),
            (spec.outputs, self.outputs, self.binding.bind_ortvalue_output),
        ):
            for tensor in tensors:
                prefix, _, row = tensor.name.partition(".")
                if prefix in ("past_key_values", "present"):
                    bind(tensor.name, rows.values[row])
                    continue
                arrays[tensor.name] = np.zeros(tensor.shape, DTYPES[tensor.dtype])
                value = ort.OrtValue.ortvalue_from_numpy(arrays[tensor.name])
                self._bound.append(value)
                bind(tensor.name, value)

    def run(self) -> None:
        self.session.run_with_iobinding(self.binding)


class CopyRunner:
    """A session of a provider that does not read bound memory anew at each run: everything is handed over, and copied.

    So does OpenVINO's, version 1.8 for ONNX Runtime 1.31.
    """

    def __init__(self, session: InferenceSession, spec: EngineSpec, rows: HostKV) -> None:
        self.session = session
        self.inputs: dict[str, np.ndarray] = {}
        self.outputs: dict[str, np.ndarray] = {}
        self.feed: dict[str, np.ndarray] = {}
        self.places: list[np.ndarray] = []
        for tensor in (*spec.inputs, *spec.outputs):
            kind, _, row = tensor.name.partition(".")
            cached = kind in ("past_key_values", "present")
            array = rows.values[row].numpy() if cached else np.zeros(tensor.shape, DTYPES[tensor.dtype])
            given = tensor in spec.inputs
            if not cached:
                (self.inputs if given else self.outputs)[tensor.name] = array
            if given:
                self.feed[tensor.name] = array
            else:
                self.places.append(array)

    def run(self) -> None:
        for place, value in zip(self.places, self.session.run(None, self.feed), strict=True):
            np.copyto(place, value)


def store(spec: CacheSpec, place: Device = CPU) -> HostKV | DeviceKV:
    """Rows where the engines run. Raises BackendError where they do not fit."""
    _provider(place)  # registers a plug-in, which threads that load engines must not do at once
    if place.device == "cpu":
        return HostKV(spec)
    try:
        return DeviceKV(spec, place.device)
    except Exception as e:
        raise BackendError(
            f"{place.device} has no room for a cache of {spec.bytes >> 20} MiB{free(place.device)} ({first_line(e)}); "
            "free some, or compile with a smaller --max-seq-len"
        ) from e


def load(
    bundle: Bundle, spec: EngineSpec, rows: HostKV | DeviceKV, place: Device = CPU
) -> OrtRunner | CopyRunner | DeviceRunner:
    """The engine; on the CPU from its packed twin if this machine has one. Raises BackendError."""
    try:
        if isinstance(rows, HostKV):
            if place.provider not in (None, "cpu"):
                return CopyRunner(_session(bundle, spec.file, place), spec, rows)
            options = session_options(spec.threads)
            key = spec.file, options.intra_op_num_threads
            session = rows.sessions.get(key) or packed_weights.session(bundle, spec, options)
            rows.sessions[key] = session
            return OrtRunner(session, spec, rows)
        return _on_device(bundle, spec, rows, place)
    except BackendError:
        raise
    except Exception as e:
        raise BackendError(
            f"ONNX Runtime {ort.__version__} cannot load {bundle.file(spec.file)}{free(place.device)}: {first_line(e)}"
        ) from e


def _on_device(bundle: Bundle, spec: EngineSpec, rows: DeviceKV, place: Device) -> DeviceRunner:
    """With its launches captured where the provider can, and where all of the engine's nodes run on it."""
    committer = _session(bundle, spec.commit, place) if spec.commit else None
    plain = partial(_session, bundle, spec.file, place)
    if captures(place.runs.title):
        try:
            return DeviceRunner(_session(bundle, spec.file, place, graphs=True), spec, rows, committer, plain)
        except BackendError:
            raise
        except Exception as e:
            uncaptured(f"engine {spec.name}", e)
    return DeviceRunner(plain(), spec, rows, committer)


def _session(bundle: Bundle, file: str, place: Device, graphs: bool = False) -> InferenceSession:
    """A session whose nodes run on the provider, or on the CPU where it lacks them. Raises BackendError."""
    provider, options, path = _provider(place), session_options(), str(bundle.file(file))
    asked = {"enable_cuda_graph": "1"} if graphs else {}
    if not (devices := _devices(provider)):
        return InferenceSession(path, options, providers=[(provider.title, asked), "CPUExecutionProvider"])
    # ONNX Runtime lists a plug-in among its own providers once it is registered, and ignores it under its name
    if provider.title == "OpenVINOExecutionProvider":
        asked = {"load_config": json.dumps({"CPU": openvino()})}
    options.add_provider_for_devices(devices[:1], asked)
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    session = InferenceSession(path, options)
    if provider.title not in {part.ep_name for part in session.get_provider_graph_assignment_info()}:
        raise BackendError(
            f"{provider.title} runs no node of {path}, which ONNX Runtime would not tell; take another provider"
        )
    return session


def openvino() -> dict[str, str]:
    """What OpenVINO's plug-in is asked for. SPECC_OPENVINO_PRECISION is f32 unless said. Raises BackendError."""
    precision = os.environ.get("SPECC_OPENVINO_PRECISION", "f32")
    if precision not in ("f32", "bf16"):
        raise BackendError(f"SPECC_OPENVINO_PRECISION is {precision!r}; give f32 or bf16")
    return {"INFERENCE_PRECISION_HINT": precision, "INFERENCE_NUM_THREADS": str(threads())}


def _provider(place: Device) -> Provider:
    """What runs there. Raises BackendError where it is missing."""
    if missing := lacks(place.runs):
        raise BackendError(missing)
    return place.runs


def lacks(provider: Provider) -> str:
    """What is missing for a provider, with the remedy; nothing where it is here. A plug-in is registered by asking."""
    if provider.plugin and importlib.util.find_spec(provider.plugin):
        try:
            if not _devices(provider):
                library = importlib.import_module(provider.plugin).get_library_path()
                ort.register_execution_provider_library(provider.title, library)
        except Exception as e:  # ONNX Runtime's errors have no family
            return f"{provider.title} does not load: {first_line(e)}; install its device's driver, or {provider.extra}"
        return "" if _devices(provider) else f"{provider.title} finds no device that it runs on; take another provider"
    if provider.title in (held := ort.get_available_providers()):
        return ""
    return (
        f"this ONNX Runtime has no {provider.title}, only {', '.join(held)}; "
        f"install {provider.extra} in an environment of its own"
    )


def _devices(provider: Provider) -> list[ort.OrtEpDevice]:
    """Those that a plug-in has registered; none of a provider that is a part of ONNX Runtime."""
    kind = ort.OrtHardwareDeviceType.CPU if provider.device == "cpu" else ort.OrtHardwareDeviceType.GPU
    found = ort.get_ep_devices() if provider.plugin else []
    return [d for d in found if d.ep_name == provider.title and d.device.type == kind]


def session_options(wanted: int = 0) -> ort.SessionOptions:
    """Threads that wait for the next node or step awake, but not so long that sessions spin against each other.

    wanted: threads, as many as the process takes at most and by default.
    """
    options = ort.SessionOptions()
    options.intra_op_num_threads = min(wanted or threads(), threads())
    options.add_session_config_entry("session.intra_op.spin_duration_us", SPIN)
    options.log_severity_level = 3
    return options
