"""Engines of the `onnx` backend: ONNX Runtime on the CPU, inputs and outputs bound once, caches in place."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import onnxruntime as ort

from ..bundle import Bundle
from ..errors import BackendError
from ..manifest import CacheSpec, EngineSpec
from . import packed

DTYPES = {"int64": np.int64, "float": np.float32, "float32": np.float32, "bool": np.bool_, "int32": np.int32}


class Rows:
    """The rows of one cache: for each shape of a layer's keys, one array [tensors, heads, capacity, size].

    `values` are its tensors by name, as the engines bind them.
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

    def move(self, start: int, rows: Sequence[int]) -> None:
        for array in self.arrays:
            array[:, :, start : start + len(rows)] = array[:, :, list(rows)]


store = Rows


class OrtRunner:
    """A session whose every input and output has its place; `present.*` is `past_key_values.*` itself."""

    def __init__(self, session: ort.InferenceSession, spec: EngineSpec, rows: Rows) -> None:
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


def load(bundle: Bundle, spec: EngineSpec, rows: Rows) -> OrtRunner:
    """The engine, from its packed twin if this machine has one."""
    options = session_options()
    try:
        session = packed.session(bundle, spec, options)
    except Exception as e:
        raise BackendError(
            f"ONNX Runtime {ort.__version__} cannot load {bundle.file(spec.file)}: {e}".splitlines()[0]
        ) from e
    return OrtRunner(session, spec, rows)


def session_options() -> ort.SessionOptions:
    """Sessions of one process must not spin against each other: each stops spinning when its run ends.

    SPECC_THREADS sets the threads; by default the processors that this process may use.
    """
    threads = os.environ.get("SPECC_THREADS") or str(len(os.sched_getaffinity(0)))
    if not threads.isdecimal() or threads == "0":
        raise BackendError(f"SPECC_THREADS is {threads!r}; give a whole number, 1 or more")
    options = ort.SessionOptions()
    options.intra_op_num_threads = int(threads)
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.log_severity_level = 3
    return options
