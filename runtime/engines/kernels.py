"""The library of specc-kernels: ONNX Runtime operators of the domain `specc`, for engines that need them.

It is a package that a user installs. A bundle never brings one. An engine lists its operators in `needs`, each as
`specc::NAME` with the least version of specc-kernels that has it.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from ..errors import BackendError, backend_errors, first_line
from ..extras import KERNELS, package
from ..manifest import EngineSpec
from .onnx_runtime import ort
from .versions import numbers

PACKAGE, MODULE, DOMAIN = "specc-kernels", "specc_kernels", "specc::"
REFERENCE = "scalar"  # every processor can run this variant of the kernels
SLOW = (
    f"only the variant {REFERENCE} is in use, which is many times slower; unset SPECC_KERNELS_DISABLE, or use a "
    "processor with AVX2 or NEON"
)
# ONNX Runtime joins a sum and a norm where it knows the shapes, and their last bits change. It knows those of a tree
# with a fixed number of slots, and not those of plain decoding.
FUSION = "SkipLayerNormFusion"
REWRITE = "or rewrite the bundle: specc export --standard BUNDLE -o OUT"


@dataclass(frozen=True, kw_only=True)
class Library:
    """The installed library.

    Attributes:
        version: of the package.
        path: the shared library's file.
        operators: the names of its operators, without their domain.
        built: the sets of instructions that it was built for, slowest first.
        variants: those of them that this processor has.
        active: the variant in use.
    """

    version: str
    path: str
    operators: tuple[str, ...]
    built: tuple[str, ...]
    variants: tuple[str, ...]
    active: str


def needed(spec: EngineSpec) -> bool:
    """Return whether an engine has operators of specc-kernels."""
    return any(name.startswith(DOMAIN) for name in spec.needs)


def library() -> Library:
    """Load the library and describe it.

    Raises:
        BackendError: it is not installed, damaged, or built for another kind of processor.
    """
    try:
        module: Any = importlib.import_module(MODULE)
        installed = version(PACKAGE)
    except (ImportError, PackageNotFoundError) as e:
        raise BackendError(f"{PACKAGE} is not installed; pip install {package(KERNELS)}") from e
    try:
        about = module.describe()
    except OSError as e:  # specc_kernels says in one line what is wrong with the file; the system's loader does, too.
        raise BackendError(
            f"{PACKAGE} {installed} does not load: {first_line(e)}; pip install {package(KERNELS)}"
        ) from e
    return Library(
        version=installed,
        path=about.library,
        operators=about.operators,
        built=about.built,
        variants=about.supported,
        active=about.active,
    )


def usable() -> Library:
    """Load the library, and check that a variant of it is in use that is faster than the reference.

    Raises:
        BackendError: it is not installed or damaged, or this processor runs the reference alone.
    """
    here = library()
    if here.active == REFERENCE:
        raise BackendError(f"{PACKAGE} {here.version} was built for {', '.join(here.built)}, and {SLOW}")
    return here


def check() -> None:
    """Check that the library is there and that this ONNX Runtime takes it.

    Raises:
        BackendError: it is missing or damaged, or does not fit this version of ONNX Runtime.
    """
    register(ort.SessionOptions())


def require(spec: EngineSpec) -> None:
    """Check that the library has the operators of an engine. Nothing happens for an engine that has none of them.

    Raises:
        BackendError: the library is missing, damaged, or older than the engine needs, or has no variant for this
            processor.
    """
    least = {name.removeprefix(DOMAIN): oldest for name, oldest in spec.needs.items() if name.startswith(DOMAIN)}
    if not least:
        return
    try:
        here = usable()
    except BackendError as e:
        raise BackendError(f"engine {spec.name} has operators of {PACKAGE} ({', '.join(least)}): {e}; {REWRITE}") from e
    for name, oldest in least.items():
        if name not in here.operators or numbers(here.version) < numbers(oldest):
            raise BackendError(
                f"engine {spec.name} needs the operator {name} of {PACKAGE} {oldest} or newer, and here is "
                f"{here.version}; upgrade it: pip install {package(KERNELS)}"
            )


def register(options: ort.SessionOptions) -> None:
    """Make the operators known to the sessions that are loaded with these options. They then leave out `FUSION`.

    Raises:
        BackendError: the library is missing or damaged, or does not fit this version of ONNX Runtime.
    """
    here = library()
    with backend_errors(
        lambda error: (
            f"{PACKAGE} {here.version} does not fit ONNX Runtime {ort.__version__}: {error}; upgrade both: "
            f"pip install -U onnxruntime, and pip install {package(KERNELS)}"
        )
    ):
        options.register_custom_ops_library(here.path)
    options.add_session_config_entry("optimization.disable_specified_optimizers", FUSION)
