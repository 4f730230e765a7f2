"""The engines of a bundle, loaded when first asked for, and the caches that they share.

One file a backend. A backend's file has `load(bundle, spec, store) -> Runner` and `store(spec) -> Store`.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from ..bundle import Bundle
from ..engine import Engine
from ..errors import BackendError
from ..sequence import Store

BACKENDS = {"onnx": "ort"}


class Engines:
    def __init__(self, bundle: Bundle) -> None:
        self.bundle = bundle
        self._engines: dict[str, Engine] = {}
        self._stores: dict[str, Store] = {}

    def __getitem__(self, name: str) -> Engine:
        if name not in self._engines:
            spec = self.bundle.engine(name)
            runner = _backend(spec.backend).load(self.bundle, spec, store := self.store(spec.block.cache))
            self._engines[name] = Engine(name, spec.block, runner, store)
        return self._engines[name]

    def store(self, cache: str) -> Store:
        """The rows that all engines with this cache name share."""
        if cache not in self._stores:
            backend = next(e.backend for e in self.bundle.manifest.engines if e.block.cache == cache)
            self._stores[cache] = _backend(backend).store(self.bundle.manifest.caches[cache])
        return self._stores[cache]

    def prefill(self, tokens: int) -> Engine:
        """The target's narrowest causal engine that returns a next token and takes so many at once, or the widest."""
        chains = [
            e for e in self.bundle.manifest.engines if e.block.model == "target" and e.name in ("decode", "prefill")
        ]
        chains.sort(key=lambda e: e.block.slots)
        return self[next((e for e in chains if e.block.slots >= tokens), chains[-1]).name]


def _backend(name: str) -> ModuleType:
    if name not in BACKENDS:
        raise BackendError(f"this runtime has no backend {name!r}, only {', '.join(BACKENDS)}; upgrade specc")
    return importlib.import_module(f".{BACKENDS[name]}", __package__)
