"""Engines of TensorRT, of TensorRT for RTX and of torch-tensorrt. One code serves them; the module is an argument.

Weights, caches and scratch memory lie on the GPU once, for all engines. A step uploads its inputs, replays the graph of
launches that was captured after a first run, and downloads its outputs. Rows are moved by an engine of its own, from
the rows that the last run returned beside the cache. If an engine only reads the cache, that second engine also writes
its rows after each run.
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
from ..extras import package
from ..manifest import CacheSpec, EngineSpec, Tensor
from ..sequence import RowsOfLastRunner
from .cuda import Gpu, bindings
from .native_code import require_trust
from .session_cache import SessionCache
from .tensorrt_library import listener, remedy

if TYPE_CHECKING:
    from tensorrt_rtx import ICudaEngine, Library

# By a type's name: bytes of an element, and the numpy type that the host reads it as.
TYPES: dict[str, tuple[int, Any]] = {
    "float32": (4, np.float32), "int32": (4, np.int32), "int64": (8, np.int64), "bool": (1, np.bool_),
    "float16": (2, None), "bfloat16": (2, None),
}  # fmt: skip


class GpuKV(RowsOfLastRunner):
    """Rows of one cache on the GPU. The runner that ran last moves them.

    Attributes:
        capacity: rows.
        gpu: where they lie.
        addresses: of the tensors [1, heads, capacity, size], by names such as 0.key.
    """

    def __init__(self, spec: CacheSpec, gpu: Gpu) -> None:
        self.capacity, self.gpu = spec.capacity, gpu
        self.addresses = {
            f"{layer}.{name}": gpu.allocate(heads * spec.capacity * size * TYPES[spec.dtype][0])
            for layer, (heads, size) in spec.layers.items()
            for name in ("key", "value")
        }
        weakref.finalize(self, gpu.free, list(self.addresses.values()))


class Launcher:
    """A TensorRT engine with every tensor at its address: run plainly once, then as a captured graph."""

    def __init__(
        self,
        kit: Kit,
        engine: ICudaEngine,
        shapes: Mapping[str, tuple[int, ...]],
        addresses: Mapping[str, int],
    ) -> None:
        """Bind the engine's tensors.

        Args:
            kit: the library's runtime, and where it runs.
            engine: the engine.
            shapes: of the inputs, by the engine's own names.
            addresses: of all tensors, by the engine's own names.

        Raises:
            BackendError: the engine's tensors are not those of the manifest.
        """
        self.engine, self.gpu, self.log = engine, kit.gpu, kit.log
        self.context = engine.create_execution_context(kit.trt.ExecutionContextAllocationStrategy.USER_MANAGED)
        for name, shape in shapes.items():
            if not self.context.set_input_shape(name, shape):
                raise BackendError(f"TensorRT takes no {list(shape)} for input {name!r}; compile the bundle again")
        for i in range(engine.num_io_tensors):
            name = engine.get_tensor_name(i)
            if name not in addresses or not self.context.set_tensor_address(name, addresses[name]):
                raise BackendError(f"an engine's tensor {name!r} is not in the manifest; compile the bundle again")
            alias = engine.get_aliased_input_tensor(name)
            if alias and addresses[alias] != addresses[name]:
                raise BackendError(f"{name!r} and {alias!r} are one buffer and lie apart; compile the bundle again")
        if missing := self.context.infer_shapes():
            raise BackendError(f"TensorRT lacks the shape of {missing[0]!r}; compile the bundle again")
        self.gpu.reserve(engine.device_memory_size_v2)
        self.scratch = 0  # the address that the context has now
        self.graph: Any = None
        self.plain = False  # whether its launches cannot be captured
        self.dry = False  # whether it ran since it got its scratch memory, without a graph

    def launch(self) -> None:
        """Put the engine on the stream.

        Raises:
            BackendError: TensorRT cannot run it.
        """
        if self.scratch != self.gpu.scratch:
            # Another engine needed more scratch memory, which moved. The captured launches write to the old address.
            self.scratch, self.graph, self.dry = self.gpu.scratch, None, False
            self.context.set_device_memory(self.scratch, self.gpu.scratch_bytes)
        if self.dry and self.graph is None and not self.plain:
            self.gpu.synchronise()
            self.graph = self.gpu.capture(self._enqueue)
            self.plain = self.graph is None
        if self.graph is not None:
            self.gpu.replay(self.graph)
        elif not self._enqueue():
            raise BackendError(f"TensorRT could not run an engine: {self.log.last}; compile the bundle again here")
        self.dry = True

    def _enqueue(self) -> bool:
        return bool(self.context.execute_async_v3(int(self.gpu.stream)))


class TensorRTRunner:
    """An engine, and the second engine that commits its rows."""

    def __init__(self, kit: Kit, bundle: Bundle, spec: EngineSpec, store: GpuKV) -> None:
        self.kit, self.spec, self.store, self.gpu = kit, spec, store, store.gpu
        self.addresses: dict[str, int] = {}
        self.inputs: dict[str, np.ndarray] = {}
        self.outputs: dict[str, np.ndarray] = {}
        weights = bundle.file(spec.weights or bundle.manifest.weights)
        for tensor in spec.inputs:
            kind, _, row = tensor.name.partition(".")
            if kind == "past_key_values":
                self.addresses |= {f"{k}.{row}": store.addresses[row] for k in ("past_key_values", "present")}
            elif tensor.name in spec.weight_inputs:
                self.addresses[tensor.name] = self.gpu.weight(weights, spec.weight_inputs[tensor.name])
            else:
                self.inputs[tensor.name] = self._allocate(tensor)
        for tensor in spec.outputs:
            kind = tensor.name.partition(".")[0]
            if kind == "rows":
                self.addresses[tensor.name] = self.gpu.allocate(_bytes(tensor))
            elif kind != "present":
                self.outputs[tensor.name] = self._allocate(tensor)
        self.launcher = self._launcher(bundle, spec.file, spec.inputs, spec.outputs if kit.numbered else None)
        self.committer: Launcher | None = None
        self.slots = np.arange(spec.block.slots)
        self.reads_only = not any(t.name.startswith("present.") for t in spec.outputs)
        if spec.commit:
            index = Tensor("index", "int64", (spec.block.slots,))
            self.addresses["index"] = self.gpu.allocate(_bytes(index))
            names = ("past_key_values", "rows")
            moved = [t for t in (*spec.inputs, *spec.outputs) if t.name.partition(".")[0] in names]
            past_len = next(t for t in spec.inputs if t.name == "past_len")
            self.committer = self._launcher(bundle, spec.commit, [index, past_len, *moved])

    def run(self) -> None:
        """Upload the inputs, update the rows in place, download the outputs, and wait once for all of it."""
        for name, array in self.inputs.items():
            self.gpu.upload(self.addresses[name], array)
        self.launcher.launch()
        if self.reads_only and self.committer:
            self.gpu.upload(self.addresses["index"], self.slots)
            self.committer.launch()
        for name, array in self.outputs.items():
            self.gpu.download(array, self.addresses[name])
        self.gpu.synchronise()
        self.store.last = self

    def commit(self, start: int, slots: Sequence[int]) -> None:
        """Move rows of the last run. The rows behind the moved ones are scratch.

        Args:
            start: the row of the run's slot 0.
            slots: ascending; their rows go to `start`, `start + 1`, …

        Raises:
            BackendError: the engine has no commit file.
        """
        if self.committer is None:
            raise BackendError(f"engine {self.spec.name} has no file that commits its rows; compile the bundle again")
        index = self.slots.copy()
        index[: len(slots)] = slots
        self.gpu.upload(self.addresses["index"], index)
        assert self.inputs["past_len"][0] == start, "rows are committed where the last run began"
        self.committer.launch()
        self.gpu.synchronise()  # `index` must live until it is uploaded.

    def _allocate(self, tensor: Tensor) -> np.ndarray:
        """Give a tensor memory on the GPU, and return the host array that is copied to it or from it."""
        self.addresses[tensor.name] = self.gpu.allocate(_bytes(tensor))
        return np.zeros(tensor.shape, TYPES[tensor.dtype][1])

    def _launcher(
        self, bundle: Bundle, file: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor] | None = None
    ) -> Launcher:
        """Load a file of the bundle and bind its tensors.

        Args:
            bundle: whose file.
            file: its name.
            inputs: of the engine.
            outputs: given only if the engine has names of its own for all tensors, in the manifest's order.
        """
        engine = self.kit.engine(bundle, file)
        names = {t.name: t.name for t in inputs} if outputs is None else self.kit.names(engine, inputs, outputs)
        addresses = self.addresses | {own: self.addresses[name] for name, own in names.items()}
        return Launcher(self.kit, engine, {names[t.name]: t.shape for t in inputs}, addresses)


class Kit:
    """A library's runtime on a GPU.

    Attributes:
        name: of the backend.
        trt: the library's module.
        gpu: where its engines run.
        log: keeps the library's last error.
        numbered: whether its engines have names of their own for tensors, so that only the order tells which is which.
    """

    def __init__(self, name: str, trt: Library, gpu: Gpu, numbered: bool = False) -> None:
        self.name, self.trt, self.gpu, self.numbered = name, trt, gpu, numbered
        self.log = listener(trt)
        self.runtime = trt.Runtime(self.log)

    def check(self, spec: EngineSpec) -> None:
        """Check that an engine was built for this library and GPU; the library itself would only return None.

        Raises:
            BackendError: it was built for another version or compute capability.
        """
        here = {self.trt.__name__: str(self.trt.__version__), "compute_capability": self.gpu.capability()}
        for what, version in spec.needs.items():
            if what in here and here[what] != version:
                raise BackendError(
                    f"engine {spec.name} was built for {what} {version} and here is {here[what]}; "
                    f"compile again with --backend {self.name} here"
                )

    def engine(self, bundle: Bundle, file: str) -> ICudaEngine:
        """Load an engine.

        Raises:
            BackendError: the library cannot load it.
        """
        engine = self.runtime.deserialize_cuda_engine(bundle.file(file).read_bytes())
        if engine is None:
            reason = self.log.last
            raise BackendError(f"{self.name} {self.trt.__version__} cannot load {file}: {reason}; {remedy(reason)}")
        return engine

    def names(self, engine: ICudaEngine, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> dict[str, str]:
        """Return the engine's own name of each tensor, by the manifest's name.

        Raises:
            BackendError: the engine has another number of inputs or outputs than the manifest.
        """
        mode, all_names = self.trt.TensorIOMode, [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        names: dict[str, str] = {}
        for kind, tensors in ((mode.INPUT, inputs), (mode.OUTPUT, outputs)):
            own = [name for name in all_names if engine.get_tensor_mode(name) == kind]
            if len(own) != len(tensors):
                raise BackendError(
                    f"an engine of {self.name} has {len(own)} {kind.name.lower()}s and the manifest {len(tensors)}; "
                    "compile the bundle again"
                )
            names |= dict(zip((t.name for t in tensors), own, strict=True))
        return names


class TensorRT:
    """A backend whose engines a TensorRT library runs.

    Attributes:
        name: of the backend.
        modules: the Python modules that the library may be; an engine's `needs` names one of them.
        numbered: see Kit.
        native_code: see `specc.runtime.engines.Backend`. TensorRT itself refuses a plan with code for the host.
    """

    def __init__(self, name: str, *modules: str, numbered: bool = False, native_code: bool = False) -> None:
        self.name, self.modules, self.numbered, self.native_code = name, modules, numbered, native_code

    def runs_lanes(self, device: Device) -> bool:
        """Return False: this backend has no engines with lanes."""
        return False

    def many_caches(self, device: Device) -> bool:
        """Return False: an engine and its graph of launches would be loaded once more."""
        return False

    def store(self, spec: CacheSpec, device: Device) -> GpuKV:
        """Make the rows of a cache on the GPU.

        Raises:
            BackendError: CUDA is missing, or the rows do not fit.
        """
        return GpuKV(spec, process_gpu())

    def load(
        self, bundle: Bundle, spec: EngineSpec, store: GpuKV, device: Device, sessions: SessionCache
    ) -> TensorRTRunner:
        """Load an engine.

        Args:
            bundle: whose engine.
            spec: the engine.
            store: the rows of its cache, as `store` made them; it knows the GPU.
            device: where it runs.
            sessions: not used, since each engine has a file of its own.

        Raises:
            BackendError: native code is not allowed, or the library is missing, or cannot load the engine.
        """
        if self.native_code:
            require_trust(bundle, self.name)
        module = next((m for m in self.modules if m in spec.needs), self.modules[0])
        try:
            trt: Any = importlib.import_module(module)
        except (ImportError, OSError) as e:
            raise BackendError(f"{module} does not import ({e}); pip install {package(self.name)}") from e
        kit = Kit(self.name, trt, store.gpu, self.numbered)
        kit.check(spec)
        return TensorRTRunner(kit, bundle, spec, store)


TENSORRT = TensorRT("tensorrt", "tensorrt")
RTX = TensorRT("tensorrt-rtx", "tensorrt_rtx")
TORCH = TensorRT("torch-tensorrt", "tensorrt", "tensorrt_rtx", numbered=True, native_code=True)


@cache
def process_gpu() -> Gpu:
    """Return the GPU of this process, which all bundles share."""
    return Gpu(bindings())


def _bytes(tensor: Tensor) -> int:
    return TYPES[tensor.dtype][0] * int(np.prod(tensor.shape))
