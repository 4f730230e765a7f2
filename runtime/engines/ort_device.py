"""Engines of ONNX Runtime on a GPU: caches stay there, a step copies tokens in and outputs out, a graph moves rows.

On CUDA an engine first runs without a captured graph, then its launches are captured, then they are replayed as one. A
step waits for its outputs. A commit is not waited for until the next step begins. Tests run all of this with the CPU as
the device.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..environment import cuda_graphs
from ..errors import BackendError, SpeccWarning, backend_errors, first_line
from ..manifest import CacheSpec, EngineSpec, Tensor
from ..sequence import RowsOfLastRunner
from .cuda import bindings
from .onnx_runtime import ort

# By a type's name: ONNX's number for it, and the numpy type that carries its bytes on the host.
TYPES: dict[str, tuple[int, Any]] = {
    "float32": (1, np.float32), "uint8": (2, np.uint8), "int32": (6, np.int32), "int64": (7, np.int64),
    "bool": (9, np.bool_), "float16": (10, np.float16), "bfloat16": (16, np.uint16),
}  # fmt: skip
# By provider: the run option that names a captured graph. A provider ignores the options of another.
GRAPHS = {"CUDAExecutionProvider": "gpu_graph_id", "NvTensorRTRTXExecutionProvider": "cuda_graph_annotation_id"}
ASYNCHRONOUS = "disable_synchronize_execution_providers"
_numbers = itertools.count(1)  # Numbers of captured graphs; ONNX Runtime itself uses 0.


def captures(provider: str) -> bool:
    """Return whether launches are captured by that provider."""
    return provider in GRAPHS and cuda_graphs()


def run_options(graph: int, **entries: str) -> ort.RunOptions:
    """Make the options of a run.

    Args:
        graph: the number under which launches are captured, and then replayed; -1 captures nothing.
        **entries: further options.
    """
    options = ort.RunOptions()
    for key, value in (dict.fromkeys(GRAPHS.values(), str(graph)) | entries).items():
        options.add_run_config_entry(key, value)
    return options


def warn_uncaptured(engine: str, error: Exception) -> None:
    """Warn that an engine runs without a captured graph, and why."""
    text = f"engine {engine}: its launches cannot be captured ({first_line(error)}); it runs without a captured graph"
    warnings.warn(text, SpeccWarning, stacklevel=3)


def free(device: str) -> str:
    """Return a phrase for messages: ", 3 of 8 MiB being free". It is empty on the CPU, or if CUDA does not say."""
    if device == "cpu":
        return ""
    try:
        error, available, total = bindings().cudaMemGetInfo()
    except (BackendError, RuntimeError, ValueError):
        return ""
    return "" if int(error) else f", {available >> 20} of {total >> 20} MiB being free"


def zeros(dtype: str, shape: Sequence[int], device: str) -> ort.OrtValue:
    """Make a tensor of zeros on a device.

    Rows must begin as numbers: attention multiplies a masked row by 0, and 0 times NaN is NaN.
    """
    number, carrier = TYPES[dtype]
    value = ort.OrtValue.ortvalue_from_shape_and_type(list(shape), number, device)
    value.update_inplace(np.zeros(shape, carrier))
    return value


class DeviceKV(RowsOfLastRunner):
    """Rows of one cache on a device, by names such as 0.key. The runner that ran last moves them.

    Attributes:
        capacity: rows.
        device: as ONNX Runtime names it: cuda, or cpu in tests.
        values: the tensors [1, heads, capacity, size] that engines bind.
        moving: the binding of a commit that was not waited for yet.
    """

    def __init__(self, spec: CacheSpec, device: str) -> None:
        self.capacity, self.device = spec.capacity, device
        self.moving: ort.IOBinding | None = None
        self.values = {
            f"{layer}.{name}": zeros(spec.dtype, (1, heads, spec.capacity, size), device)
            for layer, (heads, size) in spec.layers.items()
            for name in ("key", "value")
        }

    def settle(self) -> None:
        """Wait for a commit: ONNX Runtime does not order the launches of two sessions."""
        if self.moving is not None:
            self.moving.synchronize_outputs()
            self.moving = None


class DeviceRunner:
    """A session with inputs and outputs at fixed addresses of the device, so that captured launches can be replayed."""

    def __init__(
        self,
        session: ort.InferenceSession,
        spec: EngineSpec,
        store: DeviceKV,
        committer: ort.InferenceSession | None = None,
        plain: Callable[[], ort.InferenceSession] | None = None,
    ) -> None:
        """Bind the session.

        Args:
            session: of the engine's file.
            spec: the engine.
            store: the rows of its cache.
            committer: session of the engine's commit file, if it has one.
            plain: loads the session again without graphs; None if `session` captures none.
        """
        self.spec, self.store, self.committer, self.plain = spec, store, committer, plain
        self.inputs, self._in = self._arrays(spec.inputs)
        self.outputs, self._out = self._arrays(spec.outputs)
        self._bind(session)
        self._dry, self._captured = run_options(-1), run_options(next(_numbers))
        self._moving = run_options(-1, **{ASYNCHRONOUS: "1"})
        self._ran = False
        if committer:
            self._index = zeros("int64", (spec.block.slots,), store.device)
            self._start = zeros("int64", (1,), store.device)
            inputs = {"index": self._index, "past_len": self._start} | self._caches(spec.inputs)
            self._commit_binding = _bound(committer, inputs, self._caches(spec.outputs))

    def run(self) -> None:
        """Copy the inputs in, update the rows in place, copy the outputs out, and wait for them."""
        self.store.settle()
        for name, value in self._in.items():
            value.update_inplace(self.inputs[name])
        self._launch()
        for name, value in self._out.items():
            self.outputs[name][...] = value.numpy()
        self.store.last = self

    def commit(self, start: int, slots: Sequence[int]) -> None:
        """Move rows of the last run, and do not wait for it.

        Args:
            start: the row of the run's slot 0.
            slots: ascending; their rows go to `start`, `start + 1`, … The rows behind those stay where they are.

        Raises:
            BackendError: the engine has no commit file.
        """
        if self.committer is None:
            raise BackendError(
                f"engine {self.spec.name} has no file that commits its rows; compile with --lowering portable"
            )
        index = np.arange(self.spec.block.slots)
        index[: len(slots)] = slots
        self.store.settle()
        self._index.update_inplace(index)
        self._start.update_inplace(np.array([start]))
        self.committer.run_with_iobinding(self._commit_binding, self._moving)
        self.store.moving = self._commit_binding

    def _bind(self, session: ort.InferenceSession) -> None:
        inputs, outputs = self._caches(self.spec.inputs), self._caches(self.spec.outputs)
        self.session, self.binding = session, _bound(session, self._in | inputs, self._out | outputs)

    def _launch(self) -> None:
        """Run the session: the first time without a graph, since it allocates what a capture may not allocate."""
        if self.plain is not None and self._ran:
            try:
                self.session.run_with_iobinding(self.binding, self._captured)
                return
            except Exception as e:  # ONNX Runtime's errors have no common base.
                warn_uncaptured(self.spec.name, e)
                self._bind(self.plain())
                self.plain = None
        with backend_errors(
            lambda error: (
                f"ONNX Runtime could not run engine {self.spec.name}{free(self.store.device)}: {error}; "
                "take another --execution-provider, or compile with a smaller --max-seq-len"
            )
        ):
            self.session.run_with_iobinding(self.binding, self._dry)
        self._ran = True

    def _arrays(self, tensors: Sequence[Tensor]) -> tuple[dict[str, np.ndarray], dict[str, ort.OrtValue]]:
        """Make a host array and a device tensor for each tensor that is not a part of a cache."""
        own = [t for t in tensors if t.name.partition(".")[0] not in ("past_key_values", "present")]
        arrays = {t.name: np.zeros(t.shape, TYPES[t.dtype][1]) for t in own}
        return arrays, {t.name: zeros(t.dtype, t.shape, self.store.device) for t in own}

    def _caches(self, tensors: Sequence[Tensor]) -> dict[str, ort.OrtValue]:
        """Return the store's tensor for each tensor that is a part of a cache."""
        names = [t.name.partition(".") for t in tensors]
        return {f"{p}.{row}": self.store.values[row] for p, _, row in names if p in ("past_key_values", "present")}


def _bound(session: ort.InferenceSession, inputs: dict[str, Any], outputs: dict[str, Any]) -> ort.IOBinding:
    """Bind a session's inputs and outputs to tensors."""
    binding = session.io_binding()
    for name, value in inputs.items():
        binding.bind_ortvalue_input(name, value)
    for name, value in outputs.items():
        binding.bind_ortvalue_output(name, value)
    return binding
