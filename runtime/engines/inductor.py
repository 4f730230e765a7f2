"""Engines of AOTInductor: compiled C++ that takes its weights from the bundle's one file and writes caches in place.

They need torch, which nothing else of the runtime does; it is imported when the first of them is loaded.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..bundle import Bundle
from ..errors import BackendError
from ..machine import threads
from ..manifest import CacheSpec, EngineSpec
from ..place import Place
from .safetensors import Stored, tensors


class Rows:
    """The rows of one cache, each layer's keys and values a tensor of its own, and the weights that engines share."""

    def __init__(self, spec: CacheSpec, torch: Any) -> None:
        self.capacity, self.torch = spec.capacity, torch
        dtype = getattr(torch, "float32" if spec.dtype == "float" else spec.dtype)
        self.values = {
            f"{layer}.{name}": torch.zeros(1, heads, spec.capacity, size, dtype=dtype)
            for layer, (heads, size) in spec.layers.items()
            for name in ("key", "value")
        }
        self._files: dict[Path, dict[str, Any]] = {}

    def move(self, start: int, rows: Sequence[int]) -> None:
        for value in self.values.values():
            value[:, :, start : start + len(rows)] = value[:, :, list(rows)]

    def weights(self, file: Path) -> dict[str, Any]:
        """The tensors of a file, mapped once."""
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
        return self.torch.frombuffer(stored.data, dtype=dtype).reshape(stored.shape)


class Runner:
    """A package with its inputs and outputs on host arrays."""

    def __init__(self, package: Any, spec: EngineSpec, rows: Rows) -> None:
        self.package = package
        self.inputs: dict[str, np.ndarray] = {}
        self.arguments: list[Any] = []
        for tensor in spec.inputs:
            kind, _, row = tensor.name.partition(".")
            if kind == "past_key_values":
                self.arguments.append(rows.values[row])
            else:
                self.inputs[tensor.name] = np.zeros(tensor.shape, tensor.dtype)
                self.arguments.append(rows.torch.from_numpy(self.inputs[tensor.name]))
        kinds = {t.name: "float32" if t.dtype == "float" else t.dtype for t in spec.outputs}
        self.outputs = {t.name: np.zeros(t.shape, kinds[t.name]) for t in spec.outputs}

    def run(self) -> None:
        made = self.package(*self.arguments)
        for name, array in self.outputs.items():
            array[...] = made[name].numpy()


def store(spec: CacheSpec, place: Place) -> Rows:
    """Raises BackendError where torch is missing."""
    return Rows(spec, _torch())


def load(bundle: Bundle, spec: EngineSpec, rows: Rows, place: Place) -> Runner:
    """Raises BackendError for a package of another torch or processor, or that does not load."""
    torch = rows.torch
    torch.set_num_threads(threads())
    here = {"torch": str(torch.__version__), "cpu": torch.backends.cpu.get_cpu_capability()}
    for what, wanted in spec.needs.items():
        if here.get(what) != wanted:
            raise BackendError(
                f"engine {spec.name} was built for {what} {wanted} and here is {here.get(what)}; "
                "compile again with --backend inductor here"
            )
    prefix = "" if spec.block.model == "target" else f"{spec.block.model}."
    shared = rows.weights(bundle.file(spec.weights or bundle.manifest.weights))
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


def _torch() -> Any:
    try:
        import torch
        import torch._inductor
    except ImportError as e:
        raise BackendError(f"engines of backend inductor need torch ({e}); pip install specc[compile]") from e
    return torch
