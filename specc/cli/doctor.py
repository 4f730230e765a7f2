"""What `specc doctor` finds: which backends and providers this machine can build with and run, and what is missing."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

from rich.console import Group, RenderableType

from specc.cli.tables import table
from specc.runtime.device import PROVIDERS
from specc.runtime.engines import BACKENDS, DEVICES, ONNX_RUNTIME
from specc.runtime.errors import BackendError

COMPILER = "the compiler is not installed; pip install specc[compile]"
GPU = "no NVIDIA GPU, or no driver for it; nvidia-smi would show one"
NO_ONNX_RUNTIME = f"ONNX Runtime is not installed; {ONNX_RUNTIME}"
CUDA = "cuda-bindings is not installed; pip install specc[tensorrt]"


@dataclass(frozen=True)
class Finding:
    """A backend or a provider. build and run: None where the word says nothing.

    missing: what it lacks, warnings: what may break it, each with its remedy.
    """

    name: str
    kind: str
    devices: tuple[str, ...]
    build: bool | None
    run: bool
    missing: tuple[str, ...]
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def examine() -> list[Finding]:
    """All of them, backends first."""
    return [*map(_backend, BACKENDS), *map(_provider, PROVIDERS)]


def _backend(name: str) -> Finding:
    try:
        from specc.backends import backend

        lacks_to_build = backend(name).requirements()
    except ImportError:
        lacks_to_build = [COMPILER]
    lacks_to_build += [] if _onnx_runtime() else [NO_ONNX_RUNTIME]  # a compile measures what it made
    lacks_to_run = _lacks_to_run(name)
    missing = tuple(dict.fromkeys([*lacks_to_build, *lacks_to_run]))
    warnings = _rivals() if name == "onnx" else ()
    return Finding(name, "backend", DEVICES[name], not lacks_to_build, not lacks_to_run, missing, warnings)


def _lacks_to_run(name: str) -> list[str]:
    if name.startswith("inductor"):
        missing = [] if importlib.util.find_spec("torch") else ["torch is not installed; pip install specc[compile]"]
        return missing + ([GPU] if DEVICES[name] == ("cuda",) and not _gpu() else [])
    if name == "onnx":
        return [] if _onnx_runtime() else [NO_ONNX_RUNTIME]
    packages = {"tensorrt": ["tensorrt"], "tensorrt-rtx": ["tensorrt_rtx"]}.get(name, ["tensorrt", "tensorrt_rtx"])
    found = any(map(importlib.util.find_spec, packages))
    missing = [] if found else [f"{packages[0]} is not installed; pip install specc[{name}]"]
    missing += [] if importlib.util.find_spec("cuda") else [CUDA]
    return missing + ([] if _gpu() else [GPU])


def _provider(name: str) -> Finding:
    provider, library = PROVIDERS[name], _onnx_runtime()
    reason = f"ONNX Runtime is not installed; pip install {provider.extra}"
    if library:
        try:
            library.register(provider)
            reason = library.missing(provider)
        except BackendError as e:
            reason = str(e)
    missing = ([reason] if reason else []) + ([GPU] if provider.device == "cuda" and not _gpu() else [])
    return Finding(name, "provider", (provider.device,), None, not missing, tuple(missing))


def _onnx_runtime() -> Any:
    """The module of its providers, or None where it is missing."""
    try:
        from specc.runtime.engines import ort_providers
    except ImportError:
        return None
    return ort_providers


def _rivals() -> tuple[str, ...]:
    """A warning where several distributions hold the files of one package."""
    held = sorted(set(packages_distributions().get("onnxruntime", ())))
    if len(held) < 2:
        return ()
    names = " and ".join(held)
    return (
        f"{names} are installed over each other, and one breaks the other; "
        f"pip uninstall {' '.join(held)}, then {ONNX_RUNTIME}",
    )


def _gpu() -> bool:
    """Whether CUDA sees a GPU; without its bindings, whether there is a driver's device."""
    from specc.runtime.engines.cuda import bindings

    try:
        error, count = bindings().cudaGetDeviceCount()
    except BackendError:
        return Path("/dev/nvidia0").exists()
    return not int(error) and bool(count)


def report(findings: Iterable[Finding]) -> RenderableType:
    """The table, and under it what is missing and how to get it."""
    rows = table("backend or provider", "runs on", "builds here", "runs here")
    words = {True: "yes", False: "no", None: "-"}
    lines = []
    for f in findings:
        title = f.name if f.kind == "backend" else f"onnx on {PROVIDERS[f.name].title}"
        rows.add_row(title, ", ".join(f.devices), words[f.build], words[f.run])
        lines += [f"{title}: {m}" for m in f.missing]
        lines += [f"{title}: warning: {w}" for w in f.warnings]
    return Group(rows, *([""] if lines else []), *lines)
