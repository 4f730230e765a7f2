"""The verb `doctor`: what this machine can build with and run, and what is missing."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import distribution, packages_distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any

from specc.cli import console
from specc.cli.arguments import JsonOption, examples
from specc.runtime.device import PROVIDERS, Provider
from specc.runtime.extras import onnx_runtime, package

if TYPE_CHECKING:
    from rich.console import RenderableType

EXAMPLES = examples("specc doctor", "specc doctor --json")
GPU = "this machine has no NVIDIA GPU, or no driver for it; check with nvidia-smi"
NATIVE = "its engines are native code of a bundle's author, so they run only with --allow-native-code"


def command(json: JsonOption = False) -> None:
    """Show which backends and providers work on this machine.

    Begins with what works. The table says for each backend and provider whether it can build engines here, and whether
    it can run them. The lines under the table say what the others need, and how to install it. The exit status is 0
    whatever is missing; a program reads --json.
    """
    findings = examine()
    if json:
        console.emit([finding.to_json() for finding in findings])
    else:
        console.show(findings_table(findings))


def missing_part(name: str) -> str:
    """Say that a part of the compiler is not installed, with the remedy."""
    return f"{name} is not installed; pip install {package('compile')}"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """A backend, a provider of ONNX Runtime or a library of operators, as this machine has it.

    Attributes:
        name: its name.
        kind: backend, provider, or library (of operators).
        devices: the devices that its engines run on.
        build: whether it can build here; None for a provider, which builds nothing.
        run: whether it can run here.
        missing: what it needs and this machine does not have, each with the remedy.
        warnings: what may break it, each with the remedy.
        native_code: whether its engines are native code of a bundle's author, and so run with --allow-native-code only.
        notes: what it is, such as its version.
    """

    name: str
    kind: str
    devices: tuple[str, ...]
    build: bool | None
    run: bool
    missing: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    native_code: bool = False
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the finding as plain data."""
        return asdict(self)


def examine() -> list[Finding]:
    """Examine every backend, every provider, and the library of operators for the CPU."""
    from specc.runtime.engines import BACKENDS

    return [*map(_examine_backend, BACKENDS), *map(_examine_provider, PROVIDERS), _examine_kernels()]


def findings_table(findings: Sequence[Finding]) -> RenderableType:
    """Draw what works, the findings, and under them what is missing and how to get it."""
    table = console.table("backend or provider", "runs on", "builds here", "runs here")
    missing: dict[str, list[str]] = {}  # What is missing, and what needs it.
    warnings: dict[str, list[str]] = {}
    for finding in findings:
        title = _title(finding)
        builds = "-" if finding.build is None else console.yes_or_no(finding.build)
        table.add_row(title, ", ".join(finding.devices), builds, console.yes_or_no(finding.run))
        without_gpu = finding.kind == "provider" and GPU in finding.missing
        for line in (GPU,) if without_gpu else finding.missing:  # Without a GPU, no library helps a provider.
            missing.setdefault(line, []).append(title)
        for line in finding.warnings:
            warnings.setdefault(f"warning: {line}", []).append(title)
        if finding.native_code:
            warnings.setdefault(NATIVE, []).append(title)
        for line in finding.notes:
            warnings.setdefault(line, []).append(title)
    parts: list[RenderableType] = [*(console.text(line) for line in what_works(findings)), "", table]
    for heading, lines in (("Missing, if you need it:", missing), ("Note:", warnings)):
        if lines:
            parts += ["", console.text(heading, "bold")]
            parts += [console.text(f"{', '.join(titles)}: {line}") for line, titles in lines.items()]
    return console.stack(*parts)


def what_works(findings: Sequence[Finding]) -> list[str]:
    """Say in two sentences what this machine can compile and run."""
    backends = [finding for finding in findings if finding.kind == "backend"]
    builds = [finding.name for finding in backends if finding.build]
    runs = [finding.name for finding in backends if finding.run and finding.name != "onnx"]
    runs = [_title(finding) for finding in findings if finding.kind == "provider" and finding.run] + runs
    return [
        f"This machine can compile bundles with {', '.join(builds)}."
        if builds
        else "This machine cannot compile bundles yet.",
        f"It can run them with {', '.join(runs)}." if runs else "It cannot run them yet.",
    ]


def _title(finding: Finding) -> str:
    """Name a finding as the table does."""
    return f"onnx on {PROVIDERS[finding.name].title}" if finding.kind == "provider" else finding.name


def _examine_backend(name: str) -> Finding:
    from specc.runtime.engines import DEVICES, native_code

    try:
        from specc.backends import backend

        missing_to_build = list(backend(name).requirements())
    except ImportError:
        missing_to_build = [missing_part("the compiler")]
    if not _onnx_runtime():  # The end of every compile measures the bundle with it.
        missing_to_build.append(f"ONNX Runtime is not installed; {onnx_runtime()}")
    missing_to_run = _missing_to_run(name)
    return Finding(
        name=name,
        kind="backend",
        devices=DEVICES[name],
        build=not missing_to_build,
        run=not missing_to_run,
        missing=tuple(dict.fromkeys([*missing_to_build, *missing_to_run])),
        warnings=_rivals() if name == "onnx" else (),
        native_code=bool(native_code([name])),
    )


def _missing_to_run(name: str) -> list[str]:
    """List what a backend needs to run its engines and this machine does not have."""
    from specc.runtime.engines import DEVICES

    if name.startswith("inductor"):
        missing = [] if importlib.util.find_spec("torch") else [missing_part("torch")]
        if DEVICES[name] == ("cuda",) and not _gpu():
            missing.append(GPU)
        return missing
    if name == "onnx":
        return [] if _onnx_runtime() else [f"ONNX Runtime is not installed; {onnx_runtime()}"]
    packages = {"tensorrt": ["tensorrt"], "tensorrt-rtx": ["tensorrt_rtx"]}.get(name, ["tensorrt", "tensorrt_rtx"])
    missing = []
    if not any(importlib.util.find_spec(package) for package in packages):
        missing.append(f"{packages[0]} is not installed; pip install {package(name)}")
    if not importlib.util.find_spec("cuda"):
        missing.append(f"cuda-bindings is not installed; pip install {package(name)}")
    if not _gpu():
        missing.append(GPU)
    if name == "tensorrt-rtx" and not missing and (problem := _unnamed_gpu()):
        missing.append(f"this machine's GPU is none that the library runs on: {problem}; take --backend onnx")
    return missing


def _unnamed_gpu() -> str:
    """Say that TensorRT for RTX does not run on this machine's GPU; the text is empty if it may, or cannot be asked."""
    from specc.runtime.engines.cuda import Gpu, bindings
    from specc.runtime.engines.tensorrt_library import without_name
    from specc.runtime.errors import BackendError

    try:
        return without_name(importlib.import_module("tensorrt_rtx"), Gpu(bindings()).capability())
    except (BackendError, ImportError, OSError):
        return ""


def _examine_provider(name: str) -> Finding:
    provider, library = PROVIDERS[name], _onnx_runtime()
    missing = []
    if not library:
        missing.append(f"ONNX Runtime is not installed; pip install {package(provider.extra)}")
    elif problem := _problem_of(provider, library):
        missing.append(problem)
    if provider.device == "cuda" and not _gpu():
        missing.append(GPU)
    return Finding(
        name=name, kind="provider", devices=(provider.device,), build=None, run=not missing, missing=tuple(missing)
    )


def _examine_kernels() -> Finding:
    """Examine the library of specc-kernels, which engines with its operators need."""
    from specc.runtime.errors import BackendError

    missing, notes = [], []
    if not _onnx_runtime():
        missing.append(f"ONNX Runtime is not installed; {onnx_runtime()}")
    else:
        from specc.runtime.engines import kernels

        try:
            kernels.check()
            library = kernels.library()
            built, runs = ", ".join(library.built), ", ".join(library.variants)
            notes.append(f"version {library.version}, built for {built}")
            notes.append(f"this processor runs {runs}; {library.active} is in use")
            if library.active == kernels.REFERENCE:
                missing.append(kernels.SLOW)
        except BackendError as e:
            missing.append(str(e))
    works = not missing
    return Finding(
        name="specc-kernels",
        kind="library",
        devices=("cpu",),
        build=works,
        run=works,
        missing=tuple(missing),
        notes=tuple(notes),
    )


def _problem_of(provider: Provider, library: Any) -> str:
    """Register a provider that is a plug-in, and say what is missing to use it. The text is empty if nothing is."""
    from specc.runtime.errors import BackendError

    try:
        library.register(provider)
    except BackendError as e:
        return str(e)
    return str(library.missing(provider))


def _onnx_runtime() -> Any:
    """Return the module of ONNX Runtime's providers, or None if ONNX Runtime is not installed."""
    try:
        from specc.runtime.engines import ort_providers
    except ImportError:
        return None
    return ort_providers


def _rivals() -> tuple[str, ...]:
    """Return a warning if several distributions have ONNX Runtime's package, in one folder or in several."""
    names = sorted(set(packages_distributions().get("onnxruntime", ())))
    if len(names) < 2:
        return ()
    folders = {str(distribution(name).locate_file("")) for name in names}
    if len(folders) > 1:
        spec = importlib.util.find_spec("onnxruntime")
        return (
            f"{' and '.join(names)} are installed in {len(folders)} folders, and {spec and spec.origin} is in use; "
            "keep one of them on Python's path",
        )
    return (
        f"{' and '.join(names)} are installed over each other, and each breaks the other; "
        f"pip uninstall {' '.join(names)}, then {onnx_runtime()}",
    )


def _gpu() -> bool:
    """Return whether CUDA sees a GPU. Without the bindings of CUDA, look for the device of a driver."""
    from specc.runtime.engines.cuda import bindings
    from specc.runtime.errors import BackendError

    try:
        error, count = bindings().cudaGetDeviceCount()
    except BackendError:
        return Path("/dev/nvidia0").exists()
    return not int(error) and bool(count)
