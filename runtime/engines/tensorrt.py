"""Engines of TensorRT, of TensorRT for RTX and of torch-tensorrt: one code, the module being an argument.

Weights, caches and scratch lie on the GPU once, for all engines. A step uploads tokens, replays the graph of launches
that was captured after a first, plain run, and downloads what the drafter and the acceptance rule read. Rows are kept
by an engine of its own, from the rows that the last run returned beside the cache; where an engine only reads the
cache, that one writes them after each run as well.
"""

from __future__ import annotations

import importlib
import weakref
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from ..bundle import Bundle
from ..device import Device
from ..errors import BackendError
from ..manifest import CacheSpec, EngineSpec, Tensor
from .cuda import Gpu, bindings

if TYPE_CHECKING:
    from tensorrt_rtx import ICudaEngine, Library

# bytes of an element, and what the host reads it as
TYPES: dict[str, tuple[int, Any]] = {
    "float": (4, np.float32), "int32": (4, np.int32), "int64": (8, np.int64), "bool": (1, np.bool_),
    "float16": (2, None), "bfloat16": (2, None),
}  # fmt: skip


class GpuKV:
    """The rows of one cache on the GPU, by the names that engines bind; the runner that ran last moves them."""

    def __init__(self, spec: CacheSpec, device: Gpu) -> None:
        self.capacity, self.device = spec.capacity, device
        self.ran: Runner | None = None
        self.addresses = {
            f"{layer}.{name}": device.allocate(heads * spec.capacity * size * TYPES[spec.dtype][0])
            for layer, (heads, size) in spec.layers.items()
            for name in ("key", "value")
        }
        weakref.finalize(self, device.free, list(self.addresses.values()))

    def move(self, start: int, rows: Sequence[int]) -> None:
        assert self.ran is not None, "nothing ran"
        self.ran.commit(start, [row - start for row in rows])


class Launcher:
    """A context with every tensor at its address: run plainly once, then as a captured graph."""

    def __init__(self, trt: Library, engine: ICudaEngine, device: Gpu, shapes: Mapping[str, tuple[int, ...]],
                 addresses: Mapping[str, int]) -> None:  # fmt: skip
        self.engine, self.device = engine, device
        self.context = engine.create_execution_context(trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        for name, shape in shapes.items():
            if not self.context.set_input_shape(name, shape):
                raise BackendError(f"TensorRT takes no {list(shape)} for input {name!r}; compile the bundle again")
        for i in range(engine.num_io_tensors):
            name = engine.get_tensor_name(i)
            if name not in addresses or not self.context.set_tensor_address(name, addresses[name]):
                raise BackendError(f"an engine's tensor {name!r} is not in the manifest; compile the bundle again")
            same = engine.get_aliased_input_tensor(name)
            if same and addresses[same] != addresses[name]:
                raise BackendError(f"{name!r} and {same!r} are one buffer and lie apart; compile the bundle again")
        if missing := self.context.infer_shapes():
            raise BackendError(f"TensorRT lacks the shape of {missing[0]!r}; compile the bundle again")
        device.reserve(engine.device_memory_size_v2)
        self.scratch, self.graph, self.plain, self.dry = 0, None, False, False

    def launch(self) -> None:
        """Raises BackendError where TensorRT cannot run it."""
        if self.scratch != self.device.scratch:  # another engine needed more: what was captured writes elsewhere
            self.scratch, self.graph, self.dry = self.device.scratch, None, False
            self.context.set_device_memory(self.scratch, self.device.scratch_bytes)
        if self.dry and self.graph is None and not self.plain:
            self.device.synchronise()
            self.graph = self.device.capture(self._enqueue)
            self.plain = self.graph is None
        if self.graph is not None:
            self.device.replay(self.graph)
        elif not self._enqueue():
            raise BackendError("TensorRT could not run an engine; its log says why")
        self.dry = True

    def _enqueue(self) -> bool:
        return bool(self.context.execute_async_v3(int(self.device.stream)))


class Runner:
    """An engine, and the one that keeps its rows."""

    def __init__(self, kit: Kit, bundle: Bundle, spec: EngineSpec, rows: GpuKV) -> None:
        self.kit, self.spec, self.rows, self.device = kit, spec, rows, rows.device
        prefix = "" if spec.block.model == "target" else f"{spec.block.model}."
        weights = bundle.file(spec.weights or bundle.manifest.weights)
        self.addresses: dict[str, int] = {}
        self.inputs: dict[str, np.ndarray] = {}
        self.outputs: dict[str, np.ndarray] = {}
        for tensors, arrays in ((spec.inputs, self.inputs), (spec.outputs, self.outputs)):
            for tensor in tensors:
                kind, _, row = tensor.name.partition(".")
                size, host = TYPES[tensor.dtype]
                if kind in ("past_key_values", "present"):
                    self.addresses |= {f"{k}.{row}": rows.addresses[row] for k in ("past_key_values", "present")}
                elif kind != "rows" and tensors is spec.inputs and tensor.name not in HOST:
                    self.addresses[tensor.name] = self.device.weight(weights, prefix + tensor.name)
                else:
                    self.addresses[tensor.name] = self.device.allocate(size * int(np.prod(tensor.shape)))
                    if kind != "rows":
                        arrays[tensor.name] = np.zeros(tensor.shape, host)
        self.launcher = self._launcher(bundle, spec.file, spec.inputs, spec.outputs if kit.numbered else None)
        self.committer: Launcher | None = None
        self.slots = np.arange(spec.block.slots)
        self.reads_only = not any(t.name.startswith("present.") for t in spec.outputs)
        if spec.commit:
            index = Tensor("index", "int64", (spec.block.slots,))
            self.addresses["index"] = self.device.allocate(8 * spec.block.slots)
            names = ("past_key_values", "rows")
            moved = [t for t in (*spec.inputs, *spec.outputs) if t.name.partition(".")[0] in names]
            past_len = next(t for t in spec.inputs if t.name == "past_len")
            self.committer = self._launcher(bundle, spec.commit, [index, past_len, *moved])

    def run(self) -> None:
        """One synchronisation: when the outputs are here."""
        for name, array in self.inputs.items():
            self.device.upload(self.addresses[name], array)
        self.launcher.launch()
        if self.reads_only and self.committer:
            self.device.upload(self.addresses["index"], self.slots)
            self.committer.launch()
        for name, array in self.outputs.items():
            self.device.download(array, self.addresses[name])
        self.device.synchronise()
        self.rows.ran = self

    def commit(self, start: int, slots: Sequence[int]) -> None:
        """Move the rows of `slots` of the last run to `start`, …; the rows behind them are scratch."""
        if self.committer is None:
            raise BackendError(f"engine {self.spec.name} has no file that keeps its rows; compile the bundle again")
        index = self.slots.copy()
        index[: len(slots)] = slots
        self.device.upload(self.addresses["index"], index)
        assert self.inputs["past_len"][0] == start, "rows are kept where the last run began"
        self.committer.launch()
        self.device.synchronise()  # the index goes

    def _launcher(
        self, bundle: Bundle, file: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor] | None = None
    ) -> Launcher:
        """`outputs` are given where the engine has names of its own for all tensors, in the manifest's order."""
        engine = self.kit.engine(bundle, file)
        names = {t.name: t.name for t in inputs} if outputs is None else self.kit.names(engine, inputs, outputs)
        addresses = self.addresses | {own: self.addresses[name] for name, own in names.items()}
        return Launcher(self.kit.trt, engine, self.device, {names[t.name]: t.shape for t in inputs}, addresses)


HOST = {"input_ids", "past_len", "row", "parents", "mask", "depth"}  # what the loop fills; other inputs are weights


class Kit:
    """A library's runtime on a device. numbered: its engines' tensors are told by their order, not by their names."""

    def __init__(self, name: str, trt: Library, device: Gpu, numbered: bool = False) -> None:
        self.name, self.trt, self.device, self.numbered = name, trt, device, numbered
        self.logger = trt.Logger(trt.Logger.ERROR)
        self.runtime = trt.Runtime(self.logger)

    def check(self, spec: EngineSpec) -> None:
        """Raises BackendError for an engine of another version or GPU: the library would only return None."""
        found = {self.trt.__name__: str(self.trt.__version__), "compute_capability": self.device.capability()}
        for what, wanted in spec.needs.items():
            if what in found and found[what] != wanted:
                raise BackendError(
                    f"engine {spec.name} was built for {what} {wanted} and here is {found[what]}; "
                    f"compile again with --backend {self.name} here"
                )

    def engine(self, bundle: Bundle, file: str) -> ICudaEngine:
        """Raises BackendError."""
        engine = self.runtime.deserialize_cuda_engine(bundle.file(file).read_bytes())
        if engine is None:
            raise BackendError(f"{self.name} {self.trt.__version__} cannot load {file}; compile the bundle again here")
        return engine

    def names(self, engine: ICudaEngine, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> dict[str, str]:
        """What the engine calls each tensor. Raises BackendError."""
        mode, held = self.trt.TensorIOMode, [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        found: dict[str, str] = {}
        for kind, tensors in ((mode.INPUT, inputs), (mode.OUTPUT, outputs)):
            own = [name for name in held if engine.get_tensor_mode(name) == kind]
            if len(own) != len(tensors):
                raise BackendError(
                    f"an engine of {self.name} has {len(own)} {kind.name.lower()}s and the manifest {len(tensors)}; "
                    "compile the bundle again"
                )
            found |= dict(zip((t.name for t in tensors), own, strict=True))
        return found


class TensorRT:
    """A backend whose engines one of the two libraries runs.

    modules: the Python packages that it may be; the manifest says which. numbered: see Kit.
    """

    def __init__(self, name: str, *modules: str, numbered: bool = False) -> None:
        self.name, self.modules, self.numbered = name, modules, numbered

    def store(self, spec: CacheSpec, place: Device) -> GpuKV:
        return GpuKV(spec, device())

    def load(self, bundle: Bundle, spec: EngineSpec, rows: GpuKV, place: Device) -> Runner:
        """Raises BackendError."""
        module = next((m for m in self.modules if m in spec.needs), self.modules[0])
        try:
            trt = importlib.import_module(module)
        except (ImportError, OSError) as e:
            raise BackendError(f"{module} does not import ({e}); pip install specc[{self.name}]") from e
        kit = Kit(self.name, trt, rows.device, self.numbered)
        kit.check(spec)
        return Runner(kit, bundle, spec, rows)


TENSORRT = TensorRT("tensorrt", "tensorrt")
RTX = TensorRT("tensorrt-rtx", "tensorrt_rtx")
TORCH = TensorRT("torch-tensorrt", "tensorrt", "tensorrt_rtx", numbered=True)


@cache
def device() -> Gpu:
    """The GPU of this process."""
    return Gpu(bindings())
