"""ONNX Runtime on a device: caches stay there, a step copies tokens in and outputs back, rows are kept by a graph.

On CUDA the launches of an engine are captured once, after a first run without, and replayed as one. A step waits for
its outputs; keeping rows is not waited for until the next step begins. The device may be the CPU itself, which is how
this is tested where there is no other.
"""

from __future__ import annotations

import itertools
import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnxruntime as ort

from ..errors import BackendError, SpeccWarning, first_line
from ..manifest import CacheSpec, EngineSpec, Tensor
from .cuda import bindings

# ONNX's number of a type, and what carries its bytes on the host
TYPES: dict[str, tuple[int, Any]] = {
    "float": (1, np.float32), "float32": (1, np.float32), "int32": (6, np.int32), "int64": (7, np.int64),
    "bool": (9, np.bool_), "float16": (10, np.float16), "bfloat16": (16, np.uint16),
}  # fmt: skip
# A run's option that names its captured graph, by provider; what a provider does not know it ignores
GRAPHS = {"CUDAExecutionProvider": "gpu_graph_id", "NvTensorRTRTXExecutionProvider": "cuda_graph_annotation_id"}
ASYNCHRONOUS = "disable_synchronize_execution_providers"
_numbers = itertools.count(1)  # of captured graphs; 0 is ONNX Runtime's own


def captures(provider: str) -> bool:
    """Whether launches are captured there. SPECC_CUDA_GRAPHS=off captures none."""
    return provider in GRAPHS and os.environ.get("SPECC_CUDA_GRAPHS") != "off"


def options(graph: int, **entries: str) -> ort.RunOptions:
    """For runs that are captured as a graph of that number, and replayed; -1 for runs that are not."""
    made = ort.RunOptions()
    for key, value in (dict.fromkeys(GRAPHS.values(), str(graph)) | entries).items():
        made.add_run_config_entry(key, value)
    return made


def uncaptured(what: str, why: Exception) -> None:
    """Warn that an engine runs without a captured graph."""
    told = f"{what}: its launches cannot be captured ({first_line(why)}); it runs without"
    warnings.warn(told, SpeccWarning, stacklevel=3)


def free(device: str) -> str:
    """What of a GPU's memory is free, in words; nothing where nobody says."""
    if device == "cpu":
        return ""
    try:
        error, left, whole = bindings().cudaMemGetInfo()
    except (BackendError, RuntimeError, ValueError):
        return ""
    return "" if int(error) else f", {left >> 20} of {whole >> 20} MiB being free"


def zeros(dtype: str, shape: Sequence[int], device: str) -> ort.OrtValue:
    number, carrier = TYPES[dtype]
    value = ort.OrtValue.ortvalue_from_shape_and_type(list(shape), number, device)
    value.update_inplace(np.zeros(shape, carrier))  # what a mask hides is multiplied by 0, and must be a number
    return value


class DeviceKV:
    """The rows of one cache on a device, by the names that engines bind; the runner that ran last moves them."""

    def __init__(self, spec: CacheSpec, device: str) -> None:
        self.capacity, self.device = spec.capacity, device
        self.ran: DeviceRunner | None = None
        self.moving: ort.IOBinding | None = None
        self.values = {
            f"{layer}.{name}": zeros(spec.dtype, (1, heads, spec.capacity, size), device)
            for layer, (heads, size) in spec.layers.items()
            for name in ("key", "value")
        }

    def move(self, start: int, rows: Sequence[int]) -> None:
        assert self.ran is not None, "nothing ran"
        self.ran.commit(start, [row - start for row in rows])

    def settle(self) -> None:
        """Wait for rows that are being moved: another session's launches are not ordered behind them."""
        if self.moving is not None:
            self.moving.synchronize_outputs()
            self.moving = None


class DeviceRunner:
    """Inputs and outputs at fixed addresses of the device, so that a graph of launches can be replayed.

    plain: makes the session again without graphs, where this one can capture them.
    """

    def __init__(
        self, session: ort.InferenceSession, spec: EngineSpec, rows: DeviceKV,
        committer: ort.InferenceSession | None = None, plain: Callable[[], ort.InferenceSession] | None = None,
    ) -> None:  # fmt: skip
        self.spec, self.rows, self.committer, self.plain = spec, rows, committer, plain
        self.inputs, self._in = self._arrays(spec.inputs)
        self.outputs, self._out = self._arrays(spec.outputs)
        self._bind(session)
        self._dry, self._captured = options(-1), options(next(_numbers))
        self._moving = options(-1, **{ASYNCHRONOUS: "1"})
        self._ran = False
        if committer:
            slots = spec.block.slots
            index = zeros("int64", (slots,), rows.device), zeros("int64", (1,), rows.device)
            self._index, self._start = index
            caches = [self._caches(tensors) for tensors in (spec.inputs, spec.outputs)]
            self._commit_binding = _bound(
                committer, {"index": self._index, "past_len": self._start} | caches[0], caches[1]
            )

    def run(self) -> None:
        self.rows.settle()
        for name, value in self._in.items():
            value.update_inplace(self.inputs[name])
        self._launch()
        for name, value in self._out.items():
            self.outputs[name][...] = value.numpy()
        self.rows.ran = self

    def commit(self, start: int, slots: Sequence[int]) -> None:
        """Move the rows that the last run wrote from `start` on: those of `slots` to the front."""
        if self.committer is None:
            raise BackendError(
                f"engine {self.spec.name} has no file that keeps its rows; compile with --lowering portable"
            )
        index = np.arange(self.spec.block.slots)  # beyond the kept ones rows stay where they are
        index[: len(slots)] = slots
        self.rows.settle()
        self._index.update_inplace(index)
        self._start.update_inplace(np.array([start]))
        self.committer.run_with_iobinding(self._commit_binding, self._moving)
        self.rows.moving = self._commit_binding

    def _bind(self, session: ort.InferenceSession) -> None:
        given, made = self._caches(self.spec.inputs), self._caches(self.spec.outputs)
        self.session, self.binding = session, _bound(session, self._in | given, self._out | made)

    def _launch(self) -> None:
        """Once without a graph, which allocates what a capture may not; then captured, then replayed."""
        if self.plain is not None and self._ran:
            try:
                self.session.run_with_iobinding(self.binding, self._captured)
                return
            except Exception as e:  # ONNX Runtime's errors have no family
                uncaptured(f"engine {self.spec.name}", e)
                self._bind(self.plain())
                self.plain = None
        try:
            self.session.run_with_iobinding(self.binding, self._dry)
        except Exception as e:
            raise BackendError(
                f"ONNX Runtime could not run engine {self.spec.name}{free(self.rows.device)}: {first_line(e)}; "
                "take another --execution-provider, or compile with a smaller --max-seq-len"
            ) from e
        self._ran = True

    def _arrays(self, tensors: Sequence[Tensor]) -> tuple[dict[str, np.ndarray], dict[str, ort.OrtValue]]:
        mine = [t for t in tensors if t.name.partition(".")[0] not in ("past_key_values", "present")]
        arrays = {t.name: np.zeros(t.shape, TYPES[t.dtype][1]) for t in mine}
        return arrays, {t.name: zeros(t.dtype, t.shape, self.rows.device) for t in mine}

    def _caches(self, tensors: Sequence[Tensor]) -> dict[str, ort.OrtValue]:
        names = [t.name.partition(".") for t in tensors]
        return {f"{p}.{row}": self.rows.values[row] for p, _, row in names if p in ("past_key_values", "present")}


def _bound(session: ort.InferenceSession, inputs: dict[str, Any], outputs: dict[str, Any]) -> ort.IOBinding:
    binding = session.io_binding()
    for name, value in inputs.items():
        binding.bind_ortvalue_input(name, value)
    for name, value in outputs.items():
        binding.bind_ortvalue_output(name, value)
    return binding
