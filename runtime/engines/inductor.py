"""Engines of AOTInductor: compiled code that takes its weights from the bundle's one file and writes caches in place.

On the CPU a step's tokens and outputs are host arrays themselves; on a GPU they are copied, and waited for once. They
need torch, which nothing else of the runtime does; it is imported when the first of them is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..bundle import Bundle
from ..device import Device
from ..environment import threads
from ..errors import BackendError
from ..manifest import CacheSpec, EngineSpec, Tensor
from .mapped_weights import Stored, tensors

T = TypeVar("T")
CACHED = "past_key_values."


class TorchKV:
    """The rows of one cache, each layer's keys and values a tensor of its own, and the weights that engines share."""

    def __init__(self, spec: CacheSpec, torch: Any, device: str) -> None:
        self.capacity, self.torch, self.device = spec.capacity, torch, device
        dtype = _dtype(torch, spec.dtype)
        self.values = {
            f"{layer}.{name}": torch.zeros(1, heads, spec.capacity, size, dtype=dtype, device=device)
            for layer, (heads, size) in spec.layers.items()
            for name in ("key", "value")
        }
        self._files: dict[Path, dict[str, Any]] = {}

    def move(self, start: int, rows: Sequence[int]) -> None:
        chosen = self.torch.tensor(rows, device=self.device)
        for value in self.values.values():
            value[:, :, start : start + len(rows)] = value.index_select(2, chosen)

    def weights(self, file: Path) -> dict[str, Any]:
        """The tensors of a file, mapped once, or on the GPU once."""
        if file not in self._files:
            self._files[file] = {name: self._tensor(stored) for name, stored in tensors(file).items()}
        return self._files[file]

    def _tensor(self, stored: Stored) -> Any:
        dtypes = {
            "F32": "float32",
            "F16": "float16",
            "BF16": "bfloat16",
            "I64": "int64",
            "I32": "int32",
            "BOOL": "bool",
        }
        dtype = getattr(self.torch, dtypes[stored.dtype])
        held = self.torch.frombuffer(stored.data, dtype=dtype).reshape(stored.shape)
        return self.torch.asarray(held, device=self.device)


class Runner:
    """A package and its inputs and outputs, which are copied to a GPU and back."""

    def __init__(self, package: Any, spec: EngineSpec, rows: TorchKV) -> None:
        self.package, self.torch, self.cuda = package, rows.torch, rows.device != "cpu"
        self._in, self.inputs = self._host([t for t in spec.inputs if not t.name.startswith(CACHED)])
        self._out, self.outputs = self._host(spec.outputs)
        self._given = (
            {n: self.torch.zeros_like(t, device=rows.device) for n, t in self._in.items()} if self.cuda else self._in
        )
        self.arguments = [
            rows.values[t.name.removeprefix(CACHED)] if t.name.startswith(CACHED) else self._given[t.name]
            for t in spec.inputs
        ]

    def run(self) -> None:
        if self.cuda:
            for name, value in self._in.items():
                self._given[name].copy_(value, non_blocking=True)
        made = self.package(*self.arguments)
        for name, value in self._out.items():
            value.copy_(made[name], non_blocking=True)
        if self.cuda:
            self.torch.cuda.current_stream().synchronize()

    def _host(self, tensors: Sequence[Tensor]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
        """Places on the host, as torch and as numpy see them; a GPU copies to pinned ones without being waited for."""
        made = {
            t.name: self.torch.zeros(t.shape, dtype=_dtype(self.torch, t.dtype), pin_memory=self.cuda) for t in tensors
        }
        return made, {name: value.numpy() for name, value in made.items()}


def store(spec: CacheSpec, place: Device) -> TorchKV:
    """Raises BackendError where torch is missing, or sees no such device, or where the rows do not fit there."""
    torch = _torch()
    if place.device != "cpu" and not torch.cuda.is_available():
        raise BackendError(f"torch {torch.__version__} sees no CUDA GPU; specc doctor says what this machine lacks")
    return _placed(lambda: TorchKV(spec, torch, place.device), f"a cache of {spec.bytes >> 20} MiB", torch)


def load(bundle: Bundle, spec: EngineSpec, rows: TorchKV, place: Device) -> Runner:
    """Raises BackendError for a package of another torch or processor, or that does not load."""
    torch = rows.torch
    torch.set_num_threads(threads())
    here = {"torch": str(torch.__version__), **machine(torch, rows.device)}
    for what, wanted in spec.needs.items():
        if here.get(what) != wanted:
            raise BackendError(
                f"engine {spec.name} was built for {what} {wanted} and here is {here.get(what)}; "
                f"compile again with --backend {spec.backend} here"
            )
    prefix = "" if spec.block.model == "target" else f"{spec.block.model}."
    file = bundle.file(spec.weights or bundle.manifest.weights)
    shared = _placed(lambda: rows.weights(file), f"weights of {file.stat().st_size >> 20} MiB", torch)
    own = rows.weights(bundle.file(f"{spec.file}.safetensors"))
    try:
        package = torch._inductor.aoti_load_package(os.fspath(bundle.file(spec.file)), run_single_threaded=True)
        names = package.get_constant_fqns()
        package.load_constants(
            {n: shared[prefix + n] if prefix + n in shared else own[n] for n in names},
            check_full_update=True, user_managed=True,
        )  # fmt: skip
    except Exception as e:
        raise BackendError(
            f"torch {torch.__version__} cannot load {bundle.file(spec.file)}: {e}".splitlines()[0]
        ) from e
    return Runner(package, spec, rows)


def machine(torch: Any, device: str) -> dict[str, str]:
    """What a package belongs to besides a torch: a kind of processor, or of GPU."""
    if device == "cpu":
        return {"cpu": torch.backends.cpu.get_cpu_capability()}
    return {"compute capability": ".".join(map(str, torch.cuda.get_device_capability()))}


def _dtype(torch: Any, name: str) -> Any:
    """Torch's type of that name in a manifest."""
    return getattr(torch, "float32" if name == "float" else name)


def _placed(make: Callable[[], T], what: str, torch: Any) -> T:
    """Raises BackendError where the GPU has no room for it."""
    try:
        return make()
    except torch.OutOfMemoryError as e:
        free, whole = torch.cuda.mem_get_info()
        raise BackendError(
            f"the GPU has no room for {what}, {free >> 20} of {whole >> 20} MiB being free; free some, or compile with "
            "a smaller --max-seq-len"
        ) from e


def _torch() -> Any:
    try:
        import torch
        import torch._inductor
    except ImportError as e:
        raise BackendError(f"engines of backend inductor need torch ({e}); pip install specc[compile]") from e
    return torch
