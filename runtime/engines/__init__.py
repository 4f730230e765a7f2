"""The engines of a bundle, loaded when first asked for, and the caches that they share.

One file a backend. A backend's file has `load(bundle, spec, store, place) -> Runner` and `store(spec, place) -> Store`.
"""

from __future__ import annotations

import importlib
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from ..bundle import Bundle
from ..device import CPU, Device
from ..engine import Engine
from ..errors import BackendError
from ..manifest import EngineSpec
from ..sequence import KVStore
from . import memory

# a module, or module:object
BACKENDS = {
    "onnx": "ort", "inductor": "inductor", "inductor-cuda": "inductor",
    "tensorrt": "tensorrt:TENSORRT", "tensorrt-rtx": "tensorrt:RTX", "torch-tensorrt": "tensorrt:TORCH",
}  # fmt: skip
DEVICES = dict.fromkeys(BACKENDS, ("cuda",)) | {"onnx": ("cpu", "cuda"), "inductor": ("cpu",)}
ONNX_RUNTIME = "pip install specc[cpu], or specc[gpu] for an NVIDIA GPU: one of the two"


class Engines:
    """By one backend of those that the bundle was built by."""

    def __init__(self, bundle: Bundle, place: Device = CPU) -> None:
        self.bundle, self.place = bundle, place
        self.backend = choose(bundle, place)
        self._engines: dict[str, Engine] = {}
        self._stores: dict[str, KVStore] = {}

    def __getitem__(self, name: str) -> Engine:
        self.load(name)
        return self._engines[name]

    def load(self, *names: str) -> None:
        """Load those that are not there, several at once."""
        missing = [self.bundle.engine(n, self.backend) for n in dict.fromkeys(names) if n not in self._engines]
        if not missing:
            return
        if self.place.device == "cpu":
            memory.check(self.bundle, missing, [self.bundle.engine(n, self.backend) for n in self._engines])
        for spec in missing:
            self.store(spec.block.cache)  # here, not in several threads at once
        by_file: defaultdict[str, list[EngineSpec]] = defaultdict(list)
        for spec in missing:
            by_file[spec.file].append(spec)
        with ThreadPoolExecutor(len(by_file)) as pool:
            for engines in pool.map(self._load, by_file.values()):
                self._engines |= engines

    def _load(self, specs: list[EngineSpec]) -> dict[str, Engine]:
        """Those of one file, one after another, so that each may share what the first one loads."""
        load, made = _module(self.backend).load, {}
        for spec in specs:
            store = self.store(spec.block.cache)
            runner = load(self.bundle, spec, store, place=self.place)
            made[spec.name] = Engine(spec.name, spec.block, runner, store)
        return made

    def release(self, *names: str) -> None:
        """Unload engines; they load again when asked for."""
        for name in names:
            self._engines.pop(name, None)

    def store(self, cache: str) -> KVStore:
        """The rows that all engines with this cache name share."""
        if cache not in self._stores:
            spec = self.bundle.manifest.caches[cache]
            tensors = (t for e in self.specs() if e.block.cache == cache for t in e.inputs)
            dtypes = (t.dtype for t in tensors if t.name.startswith("past_key_values."))
            spec = replace(spec, dtype=next(dtypes, spec.dtype))
            try:
                self._stores[cache] = _module(self.backend).store(spec, self.place)
            except MemoryError as e:
                remedy = "compile with a smaller --max-seq-len"
                raise BackendError(f"the rows of {spec.capacity} tokens do not fit in memory ({e}); {remedy}") from e
        return self._stores[cache]

    def prefill(self, tokens: int) -> Engine:
        """The target's narrowest causal engine that returns a next token and takes so many at once, or the widest."""
        chains = [e for e in self.specs() if e.block.model == "target" and e.name in ("decode", "prefill")]
        chains.sort(key=lambda e: e.block.slots)
        return self[next((e for e in chains if e.block.slots >= tokens), chains[-1]).name]

    def specs(self) -> list[EngineSpec]:
        """The bundle's engines of this backend, loaded or not."""
        return [e for e in self.bundle.manifest.engines if e.backend == self.backend]


def choose(bundle: Bundle, place: Device) -> str:
    """The bundle's first backend that runs there. Raises BackendError."""
    held = list(dict.fromkeys(e.backend for e in bundle.manifest.engines))
    if place.backend is not None and place.backend not in held:
        raise BackendError(
            f"{bundle.path} has no engines by {place.backend}, only by {', '.join(held)}; "
            f"compile with --backend {place.backend}"
        )
    if unknown := [name for name in held if name not in BACKENDS]:
        raise BackendError(f"this runtime has no backend {unknown[0]!r}, only {', '.join(BACKENDS)}; upgrade specc")
    wanted = "onnx" if place.provider else place.backend
    devices = {name: _devices([e for e in bundle.manifest.engines if e.backend == name]) for name in held}
    for name in held:
        if wanted in (None, name) and place.device in devices[name]:
            return name
    types = {e.backend: e.block.weights for e in reversed(bundle.manifest.engines)}
    remedy = f"give --device {devices[held[0]][0]}" if place.device not in devices[held[0]] else "leave out --backend"
    raise BackendError(
        f"{bundle.path} has engines by {', '.join(f'{n} ({types[n]})' for n in held)}, none of which runs so on "
        f"{place.device}; {remedy}, or compile with --backend onnx --dtype fp32"
    )


def _devices(engines: list[EngineSpec]) -> tuple[str, ...]:
    """Where the engines of one backend run: ONNX Runtime's CPU provider has no kernels for bf16."""
    needs_gpu = any(e.backend == "onnx" and e.block.weights == "bf16" for e in engines)
    return ("cuda",) if needs_gpu else DEVICES[engines[0].backend]


def _module(name: str) -> Any:
    """Raises BackendError where ONNX Runtime is missing."""
    module, _, attribute = BACKENDS[name].partition(":")
    try:
        found = importlib.import_module(f".{module}", __package__)
    except ImportError as e:
        if (e.name or "").partition(".")[0] != "onnxruntime":
            raise
        raise BackendError(f"ONNX Runtime is not installed ({e}); {ONNX_RUNTIME}") from e
    return getattr(found, attribute) if attribute else found
