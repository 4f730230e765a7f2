"""Engines of AOTInductor: compiled code that takes its weights from the bundle's one file and updates caches in place.

On the CPU a step's inputs and outputs are host arrays themselves. On a GPU they are copied, and waited for once. These
engines need torch, which nothing else in the runtime does. It is imported when the first of them is loaded.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..bundle import Bundle
from ..device import Device
from ..errors import BackendError, first_line
from ..extras import package
from ..manifest import CacheSpec, EngineSpec, Tensor
from ..sequence import KVStore, Rows, displaced
from .mapped_weights import Stored, tensors
from .native_code import require_trust
from .session_cache import SessionCache

T = TypeVar("T")
CACHED = "past_key_values."
native_code = True  # A package is a shared library.
# By the name that a weights file gives a type: torch's name.
DTYPES = {
    "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32", "BOOL": "bool",
}  # fmt: skip


class TorchKV(Rows):
    """Rows of one cache as tensors of torch, and the weights that its engines share.

    Attributes:
        capacity: rows.
        spec: the cache's shapes.
        torch: the module.
        device: cpu or cuda.
        values: the tensors [1, heads, capacity, size], by names such as 0.key.
    """

    def __init__(self, spec: CacheSpec, torch: Any, device: str) -> None:
        self.capacity, self.spec, self.torch, self.device = spec.capacity, spec, torch, device
        dtype = _dtype(torch, spec.dtype)
        self.values = {
            f"{layer}.{name}": torch.zeros(1, heads, spec.capacity, size, dtype=dtype, device=device)
            for layer, (heads, size) in spec.layers.items()
            for name in ("key", "value")
        }
        self._files: dict[Path, dict[str, Any]] = {}
        self._lock = threading.Lock()  # Several threads load engines at once.

    def commit(self, start: int, slots: Sequence[int]) -> None:
        """Copy the rows of slots behind row `start`, ascending, to consecutive rows from `start` on."""
        if displaced(slots):
            index = self.torch.tensor([start + slot for slot in slots], device=self.device)
            for value in self.values.values():
                value[:, :, start : start + len(slots)] = value.index_select(2, index)

    def copy(self, source: KVStore, rows: int) -> int:
        """Replace all rows by the first `rows` ones of another store of torch. One of other shapes gives none."""
        if not isinstance(source, TorchKV) or source.spec != self.spec:
            return 0
        for name, value in self.values.items():
            value[:, :, :rows] = source.values[name][:, :, :rows]
        return rows

    def weights(self, file: Path) -> dict[str, Any]:
        """Return the tensors of a file by name. It is mapped once, or copied to the GPU once."""
        with self._lock:
            if file not in self._files:
                self._files[file] = {name: self._tensor(stored) for name, stored in tensors(file).items()}
            return self._files[file]

    def _tensor(self, stored: Stored) -> Any:
        dtype = getattr(self.torch, DTYPES[stored.dtype])
        mapped = self.torch.frombuffer(stored.data, dtype=dtype).reshape(stored.shape)
        return self.torch.asarray(mapped, device=self.device)


class TorchRunner:
    """A compiled package with its inputs and outputs, which are copied to a GPU and back."""

    def __init__(self, package: Any, spec: EngineSpec, store: TorchKV) -> None:
        self.package, self.torch, self.cuda = package, store.torch, store.device != "cpu"
        self._in, self.inputs = self._host([t for t in spec.inputs if not t.name.startswith(CACHED)])
        self._out, self.outputs = self._host(spec.outputs)
        self._on_device = self._in
        if self.cuda:
            self._on_device = {n: self.torch.zeros_like(t, device=store.device) for n, t in self._in.items()}
        self.arguments = [
            store.values[t.name.removeprefix(CACHED)] if t.name.startswith(CACHED) else self._on_device[t.name]
            for t in spec.inputs
        ]

    def run(self) -> None:
        """Read the inputs, update the rows in place, write the outputs."""
        if self.cuda:
            for name, value in self._in.items():
                self._on_device[name].copy_(value, non_blocking=True)
        results = self.package(*self.arguments)
        for name, value in self._out.items():
            value.copy_(results[name], non_blocking=True)
        if self.cuda:
            self.torch.cuda.current_stream().synchronize()

    def _host(self, tensors: Sequence[Tensor]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Make host memory for tensors, as torch and as numpy see it. It is pinned if a GPU copies it."""
        memory = {
            t.name: self.torch.zeros(t.shape, dtype=_dtype(self.torch, t.dtype), pin_memory=self.cuda) for t in tensors
        }
        return memory, {name: value.numpy() for name, value in memory.items()}


def runs_lanes(device: Device) -> bool:
    """Return False: this backend has no engines with lanes."""
    return False


def many_caches(device: Device) -> bool:
    """Return False: a package would be loaded once more."""
    return False


def store(spec: CacheSpec, device: Device) -> TorchKV:
    """Make the rows of a cache where the engines run.

    Raises:
        BackendError: torch is missing, or sees no such device, or the rows do not fit there.
    """
    torch = _torch()
    if device.device != "cpu" and not torch.cuda.is_available():
        raise BackendError(f"torch {torch.__version__} sees no CUDA GPU; specc doctor says what this machine lacks")
    return if_it_fits(lambda: TorchKV(spec, torch, device.device), f"a cache of {spec.bytes >> 20} MiB", torch)


def load(bundle: Bundle, spec: EngineSpec, store: TorchKV, device: Device, sessions: SessionCache) -> TorchRunner:
    """Load an engine.

    Args:
        bundle: whose engine.
        spec: the engine.
        store: the rows of its cache, as `store` made them; it knows the device.
        device: where it runs.
        sessions: not used, since packages share weights and nothing else.

    Raises:
        BackendError: native code is not allowed, or it was built for another torch or processor, does not fit, or does
            not load.
    """
    require_trust(bundle, spec.backend)
    torch = store.torch
    torch.set_num_threads(device.engine_threads)
    here = {"torch": str(torch.__version__), **machine(torch, store.device)}
    for what, version in spec.needs.items():
        if here.get(what) != version:
            raise BackendError(
                f"engine {spec.name} was built for {what} {version} and here is {here.get(what)}; "
                f"compile again with --backend {spec.backend} here"
            )
    prefix = "" if spec.block.model == "target" else f"{spec.block.model}."
    file = bundle.file(spec.weights or bundle.manifest.weights)
    shared = if_it_fits(lambda: store.weights(file), f"weights of {file.stat().st_size >> 20} MiB", torch)
    own = store.weights(bundle.file(f"{spec.file}.safetensors"))
    try:
        package = torch._inductor.aoti_load_package(os.fspath(bundle.file(spec.file)), run_single_threaded=True)
        names = package.get_constant_fqns()
        constants = {n: shared[prefix + n] if prefix + n in shared else own[n] for n in names}
        package.load_constants(constants, check_full_update=True, user_managed=True)
    except Exception as e:  # Torch's errors have no common base.
        raise BackendError(f"torch {torch.__version__} cannot load {bundle.file(spec.file)}: {first_line(e)}") from e
    return TorchRunner(package, spec, store)


def machine(torch: Any, device: str) -> dict[str, str]:
    """Return what a package belongs to besides a version of torch: a kind of processor, or of GPU."""
    if device == "cpu":
        return {"cpu": torch.backends.cpu.get_cpu_capability()}
    return {"compute capability": ".".join(map(str, torch.cuda.get_device_capability()))}


def if_it_fits(make: Callable[[], T], what: str, torch: Any) -> T:
    """Return `make()`, which allocates on the GPU.

    Raises:
        BackendError: the GPU has no room for it. The message names `what`.
    """
    try:
        return make()
    except torch.OutOfMemoryError as e:
        free, total = torch.cuda.mem_get_info()
        raise BackendError(
            f"the GPU has no room for {what}, {free >> 20} of {total >> 20} MiB being free; free some, or compile with "
            "a smaller --max-seq-len"
        ) from e


def _dtype(torch: Any, name: str) -> Any:
    """Return torch's type by its name in a manifest."""
    return getattr(torch, name)


def _torch() -> Any:
    try:
        import torch
        import torch._inductor
    except ImportError as e:
        raise BackendError(f"engines of backend inductor need torch ({e}); pip install {package('compile')}") from e
    return torch
