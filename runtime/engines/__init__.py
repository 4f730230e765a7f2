"""The engines of a bundle, loaded when they are first asked for, and the caches that they share.

Each backend is one file of this folder, and a line in `BACKENDS` and in `DEVICES`.
"""

from __future__ import annotations

import contextlib
import importlib
import weakref
from collections import defaultdict
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any, Protocol, cast

from ..bundle import Bundle
from ..checked_files import CheckedFiles
from ..device import CPU, Device
from ..engine import Engine, Runner
from ..errors import BackendError, SpeccError
from ..extras import onnx_runtime
from ..lane_calls import LanesEngine, LanesRunner
from ..manifest import CacheSpec, EngineSpec
from ..sequence import PART, KVStore
from ..width_invariance import is_width_invariant
from . import memory
from .native_code import require_trust
from .session_cache import SessionCache

# By the name of a backend: its module, or module:object. A module is imported when a bundle needs it.
BACKENDS = {
    "onnx": "ort", "inductor": "inductor", "inductor-cuda": "inductor",
    "tensorrt": "tensorrt:TENSORRT", "tensorrt-rtx": "tensorrt:RTX", "torch-tensorrt": "tensorrt:TORCH",
}  # fmt: skip
DEVICES = dict.fromkeys(BACKENDS, ("cuda",)) | {"onnx": ("cpu", "cuda"), "inductor": ("cpu",)}


class Backend(Protocol):
    """The functions that a backend's module provides to load engines and make caches. An object may stand for a module.

    Attributes:
        native_code: whether its engines are machine code of the bundle's author, which loading runs. Such a backend's
            `load` calls `require_trust` before it opens anything.
    """

    native_code: bool

    def many_caches(self, device: Device) -> bool:
        """Tell whether an engine that is loaded again over other rows shares what it loaded first.

        Then several requests can each have rows of their own.
        """

    def runs_lanes(self, device: Device) -> bool:
        """Tell whether engines with lanes run on the device. Their runners are each a `LanesRunner`."""

    def store(self, spec: CacheSpec, device: Device) -> KVStore:
        """Make the rows of a cache, all zero, where the engines run.

        Raises:
            BackendError: something is missing on this machine, or the rows do not fit.
            MemoryError: the rows do not fit in the host's memory.
        """

    def load(self, bundle: Bundle, spec: EngineSpec, store: Any, device: Device, sessions: SessionCache) -> Runner:
        """Load an engine.

        Args:
            bundle: whose engine.
            spec: the engine.
            store: the rows of its cache, as this backend's `store` made them.
            device: where it runs.
            sessions: what engines of one file may share. Engines of one file are loaded one after another, those of
                several files at once.

        Raises:
            BackendError: it cannot be loaded here.
        """


class Engines:
    """A bundle's engines by name, all of one backend.

    Attributes:
        bundle: whose engines.
        device: where they run.
        backend: the name of the backend.
        sessions: loaded files, each shared by the engines of that file.
        closed: whether they were unloaded for good.
    """

    def __init__(self, bundle: Bundle, device: Device = CPU, files: CheckedFiles | None = None) -> None:
        """Choose a backend; nothing is loaded.

        Args:
            bundle: whose engines.
            device: where they run.
            files: the bundle's files, which are checked again when an engine is loaded.

        Raises:
            BackendError: no backend of the bundle runs on the device.
        """
        self.bundle, self.device, self._files = bundle, device, files
        self.backend = choose(bundle, device)
        self.sessions = SessionCache()
        self._engines: dict[str, Engine] = {}
        self._with_lanes: dict[str, LanesEngine] = {}
        self._lanes_by_engine: dict[str, LanesEngine | None] = {}
        self._stores: dict[tuple[str, int], KVStore] = {}  # By the name of the cache and the lane.
        self.closed, self.forked = False, False

    def close(self) -> None:
        """Unload all engines and caches for good."""
        self.closed = True
        self._engines.clear()
        self._with_lanes.clear()
        self._lanes_by_engine.clear()
        self._stores.clear()

    def leave_to_parent(self) -> None:
        """Close the engines in the child of a fork, which must not free what threads of the parent were using."""
        self.closed = self.forked = True

    def check_open(self) -> None:
        """Raise a SpeccError if the engines were closed."""
        if self.forked:
            raise SpeccError(
                "this model was loaded before a fork, at which a thread was using it; load it again in the child with "
                "specc.load(bundle)"
            )
        if self.closed:
            raise SpeccError("this model is closed; open another with specc.load(bundle)")

    def __getitem__(self, name: str) -> Engine:
        self.load(name)
        return self._engines[name]

    def load(self, *names: str) -> None:
        """Load the engines of these names that are not loaded yet, several files at once.

        Raises:
            BundleError: there is no such engine, or the bundle was replaced after it was checked.
            BackendError: an engine cannot be loaded here, or there is too little memory for all of them.
        """
        self.check_open()
        missing = [self.bundle.engine(n, self.backend) for n in dict.fromkeys(names) if n not in self._engines]
        if not missing:
            return
        self._check_files()
        if self.device.device == "cpu":
            memory.check(self.bundle, missing, [self.bundle.engine(n, self.backend) for n in self._engines])
        for spec in missing:
            self.store(spec.block.store)  # Caches are made here, since the threads below may not make one twice.
        by_file: defaultdict[str, list[EngineSpec]] = defaultdict(list)
        for spec in missing:
            by_file[spec.file].append(spec)
        with ThreadPoolExecutor(len(by_file)) as pool:
            groups = list(pool.map(self._load, by_file.values()))
        self._check_files()  # They may have been replaced while they were read.
        for engines in groups:
            self._engines |= engines

    @property
    def lanes(self) -> int:
        """How many requests one run of an engine can take; 1 if the bundle has no engines with lanes.

        It is 1, too, if the target's tokens depend on the width of a call: then they would depend on other requests.
        """
        backend = _backend(self.backend)
        if not backend.runs_lanes(self.device) or not is_width_invariant(self.bundle.manifest, self.backend):
            return 1
        return max(spec.block.lanes for spec in self.specs())

    def lanes_for(self, engine: Engine) -> LanesEngine | None:
        """Return the engine with lanes that runs calls of `engine` for several requests at once; None if there is none.

        Raises:
            BundleError: the bundle was replaced after it was checked.
            BackendError: the engine with lanes cannot be loaded here.
        """
        if engine.name not in self._lanes_by_engine:
            specs = [spec for spec in self.specs() if spec.block.lanes > 1 and spec.block.model == engine.block.model]
            specs = specs if self.lanes > 1 else []
            specs.sort(key=lambda spec: spec.block.slots, reverse=True)
            candidates = (self._load_lanes(spec) for spec in specs)
            self._lanes_by_engine[engine.name] = next((c for c in candidates if c.serves(engine.block)), None)
        return self._lanes_by_engine[engine.name]

    def _load_lanes(self, spec: EngineSpec) -> LanesEngine:
        """Return an engine with lanes, and load it if it is not loaded yet."""
        if spec.name not in self._with_lanes:
            self.check_open()
            self._check_files()
            store = self.store(spec.block.store)
            runner = _backend(self.backend).load(self.bundle, spec, store, self.device, self.sessions)
            self._with_lanes[spec.name] = LanesEngine(spec.name, spec.block, cast(LanesRunner, runner))
        return self._with_lanes[spec.name]

    def _check_files(self) -> None:
        """Raise a BundleError if the bundle's files are not those that were checked."""
        if self._files is not None:
            self._files.check_again()

    def _load(self, specs: list[EngineSpec]) -> dict[str, Engine]:
        """Load engines of one file one after another, so that each can share what the first one loads."""
        backend, engines = _backend(self.backend), {}
        for spec in specs:
            store = self.store(spec.block.store)
            runner = backend.load(self.bundle, spec, store, self.device, self.sessions)
            # An engine must not keep alive what loaded it.
            bind = partial(_bind, weakref.ref(self), spec)
            engines[spec.name] = Engine(spec.name, spec.block, runner, store, bind)
        return engines

    def bind(self, spec: EngineSpec, store: KVStore) -> Runner | None:
        """Load an engine once more over the rows of another lane. None if the rows are not those of its cache.

        Raises:
            BundleError: the bundle was replaced after it was checked.
            BackendError: it cannot be loaded here.
        """
        self.check_open()
        stores = ((name.partition(PART)[0], own) for (name, _), own in self._stores.items())
        if not any(own is store for name, own in stores if name == spec.block.store):
            return None
        self._check_files()
        return _backend(self.backend).load(self.bundle, spec, store, self.device, self.sessions)

    def release(self, *names: str) -> None:
        """Unload engines. They load again when they are asked for."""
        for name in names:
            self._engines.pop(name, None)

    def store(self, cache: str, lane: int = 0) -> KVStore:
        """Return the rows that all engines with this cache name share in a lane. They are made at the first call.

        Args:
            cache: the name. A colon and a further name ask for rows of their own, shaped as those of the cache; a
                drafter has them that runs an engine over several caches of one text.
            lane: the number of the lane.

        Raises:
            BackendError: something is missing on this machine, or the rows do not fit, or the backend has one lane.
        """
        self.check_open()
        cache = next((e.block.store for e in self.specs() if e.block.cache == cache), cache)
        if (cache, lane) not in self._stores:
            whole = cache.partition(PART)[0]
            backend, spec = _backend(self.backend), self.bundle.manifest.caches[whole]
            tensors = (t for e in self.specs() if e.block.store == whole for t in e.inputs)
            dtypes = (t.dtype for t in tensors if t.name.startswith("past_key_values.") and t.name.endswith(".key"))
            spec = replace(spec, dtype=next(dtypes, spec.dtype))
            if lane:
                self._check_lane(spec)
            try:
                self._stores[cache, lane] = backend.store(spec, self.device)
            except (MemoryError, ValueError) as e:  # NumPy refuses sizes beyond 64 bits by a ValueError.
                remedy = "compile with a smaller --max-seq-len"
                raise BackendError(f"the rows of {spec.capacity} tokens do not fit in memory ({e}); {remedy}") from e
        return self._stores[cache, lane]

    def _check_lane(self, spec: CacheSpec) -> None:
        """Check that a further request can have rows of its own.

        Raises:
            BackendError: it cannot.
        """
        if not _backend(self.backend).many_caches(self.device):
            raise BackendError(f"backend {self.backend} runs over one cache; requests take turns")
        free = memory.free_memory()
        promised = sum(store.uncommitted for store in self._stores.values())
        if free is not None and spec.bytes + promised > free:
            raise BackendError(
                f"the rows of one more request take {spec.bytes >> 20} MiB, and {free >> 20} MiB are free, of which "
                f"{len(self._stores)} caches may still fill {promised >> 20} MiB; "
                "use fewer requests at once, or compile with a smaller --max-seq-len"
            )

    def prefill(self, tokens: int) -> Engine:
        """Return the target's engine that fills the cache: the narrowest that takes `tokens` at once, or the widest."""
        chains = [e for e in self.specs() if e.block.model == "target" and e.name in ("decode", "prefill")]
        chains.sort(key=lambda e: e.block.slots)
        return self[next((e for e in chains if e.block.slots >= tokens), chains[-1]).name]

    def specs(self) -> list[EngineSpec]:
        """Return the bundle's engines of this backend, loaded or not."""
        return [e for e in self.bundle.manifest.engines if e.backend == self.backend]


def _bind(engines: weakref.ref[Engines], spec: EngineSpec, store: KVStore) -> Runner | None:
    """Load an engine over another store, as `Engines.bind` does. None if the engines are gone."""
    owner = engines()
    return owner.bind(spec, store) if owner else None


def choose(bundle: Bundle, device: Device) -> str:
    """Return the name of the bundle's first backend that runs on the device.

    A backend of native code counts only if the user allows native code.

    Raises:
        BackendError: there is none. The message says which option or compile would give one.
    """
    names = list(dict.fromkeys(e.backend for e in bundle.manifest.engines))
    if device.backend is not None and device.backend not in names:
        raise BackendError(
            f"{bundle.path} has no engines by {device.backend}, only by {', '.join(names)}; "
            f"compile with --backend {device.backend}"
        )
    if unknown := [name for name in names if name not in BACKENDS]:
        raise BackendError(f"this runtime has no backend {unknown[0]!r}, only {', '.join(BACKENDS)}; upgrade specc")
    only = "onnx" if device.provider else device.backend
    devices = {name: _devices([e for e in bundle.manifest.engines if e.backend == name]) for name in names}
    candidates = [name for name in names if only in (None, name) and device.device in devices[name]]
    for name in candidates:
        if bundle.allow_native_code or not _backend(name).native_code:
            return name
    if candidates:
        require_trust(bundle, candidates[0])
    types = {e.backend: e.block.weights for e in reversed(bundle.manifest.engines)}
    remedy = "leave out --backend"
    if device.device not in devices[names[0]]:
        remedy = f"give --device {devices[names[0]][0]}"
    more = "" if device.device == "cpu" else " --lowering portable"
    if device.device == "cpu" and "bf16" in types.values():
        more = ", or install specc-kernels and compile again"
    raise BackendError(
        f"{bundle.path} has engines by {', '.join(f'{n} ({types[n]})' for n in names)}, none of which runs so on "
        f"{device.device}; {remedy}, or compile with --backend onnx --dtype fp32{more}"
    )


def _devices(engines: list[EngineSpec]) -> tuple[str, ...]:
    """Return where the engines of one backend run.

    ONNX Runtime has no kernels of its own for bf16 on the CPU; those of specc-kernels run nowhere else.
    """
    if any(name.startswith("specc::") for e in engines for name in e.needs):
        return ("cpu",)
    needs_gpu = any(e.backend == "onnx" and e.block.weights == "bf16" for e in engines)
    return ("cuda",) if needs_gpu else DEVICES[engines[0].backend]


def native_code(names: Iterable[str]) -> list[str]:
    """Return those of some backends whose engines are native code. A backend that cannot be imported here runs none."""
    native = []
    for name in dict.fromkeys(names):
        with contextlib.suppress(BackendError):
            if name in BACKENDS and _backend(name).native_code:
                native.append(name)
    return native


def _backend(name: str) -> Backend:
    """Import a backend.

    Raises:
        BackendError: ONNX Runtime is missing.
    """
    path, _, attribute = BACKENDS[name].partition(":")
    try:
        module = importlib.import_module(f".{path}", __package__)
    except ImportError as e:
        if (e.name or "").partition(".")[0] != "onnxruntime":
            raise
        raise BackendError(f"ONNX Runtime is not installed ({e}); {onnx_runtime()}") from e
    return cast(Backend, getattr(module, attribute) if attribute else module)
