"""The `onnx` backend: engines of ONNX Runtime, on the CPU, by a plug-in, or on a GPU."""

from __future__ import annotations

from functools import partial

from ..bundle import Bundle
from ..device import CPU, Device
from ..errors import BackendError, backend_errors
from ..manifest import CacheSpec, EngineSpec
from . import kernels, onnx_check, packed_weights
from .onnx_runtime import ort
from .ort_cpu import CopyRunner, HostKV, OrtRunner, session_options
from .ort_device import DeviceKV, DeviceRunner, captures, free, warn_uncaptured
from .ort_lanes import OrtLanes
from .ort_providers import CUDA, provider_session, require
from .ort_remedies import remedy
from .session_cache import SessionCache
from .versions import numbers

native_code = False  # Its engines are graphs of ONNX Runtime's own operators.


def runs_lanes(device: Device) -> bool:
    """Return whether engines with lanes run here: on ONNX Runtime's own CPU provider."""
    return device.device == "cpu" and device.provider in (None, "cpu")


def many_caches(device: Device) -> bool:
    """Tell whether engines over several caches share sessions: those of ONNX Runtime's own CPU provider do."""
    return device.device == "cpu" and device.provider in (None, "cpu")


def store(spec: CacheSpec, device: Device = CPU) -> HostKV | DeviceKV:
    """Make the rows of a cache where the engines run.

    It registers the provider, which threads that load engines must not do at once.

    Raises:
        BackendError: the provider is missing, or the rows do not fit on the GPU.
        MemoryError: the rows do not fit in the host's memory.
    """
    require(device)
    if device.device == "cpu":
        return HostKV(spec)

    def describe(error: str) -> str:
        if "CUDA Provider not available" in error:
            return f"{device.runs.title} does not load: {error}; {CUDA}"
        size = f"{spec.bytes >> 20} MiB{free(device.device)}"
        remedy = "free some, or compile with a smaller --max-seq-len"
        return f"{device.device} has no room for a cache of {size} ({error}); {remedy}"

    with backend_errors(describe):
        return DeviceKV(spec, device.device)


def load(
    bundle: Bundle, spec: EngineSpec, store: HostKV | DeviceKV, device: Device, sessions: SessionCache
) -> OrtRunner | OrtLanes | CopyRunner | DeviceRunner:
    """Load an engine; on the CPU with packed weights if this machine can keep them.

    Args:
        bundle: whose engine.
        spec: the engine.
        store: the rows of its cache, as `store` made them.
        device: where it runs.
        sessions: the sessions of one `Engines`; on the CPU engines of one file share one.

    Raises:
        BundleError: its file is not what an engine's may be.
        BackendError: ONNX Runtime cannot load it, or lacks operators that it needs.
    """
    _require_version(spec)
    kernels.require(spec)
    if spec.block.lanes > 1 and not runs_lanes(device):
        raise BackendError(
            f"engine {spec.name} has lanes, which run on ONNX Runtime's own CPU provider; "
            "leave out --device and --execution-provider, or take recipes of one sequence"
        )
    if kernels.needed(spec) and device.provider not in (None, "cpu"):
        raise BackendError(
            f"engine {spec.name} has operators of {kernels.PACKAGE}, which run on ONNX Runtime's own CPU provider and "
            f"not on {device.provider}; leave out --execution-provider, or compile with --lowering fast"
        )
    if spec.block.quantized_group and not many_caches(device):
        raise BackendError(
            f"engine {spec.name} reads rows in 4 bits, which ONNX Runtime's own CPU provider alone keeps; "
            "leave out --device and --execution-provider, or take another recipe"
        )
    file = bundle.file(spec.file)
    with backend_errors(
        lambda error: (
            f"ONNX Runtime {ort.__version__} cannot load {file}{free(device.device)}: {error}; {remedy(error)}"
        )
    ):
        if not isinstance(store, HostKV):
            return _load_on_device(bundle, spec, store, device)
        if device.provider not in (None, "cpu"):
            onnx_check.check(bundle, spec.file)
            return CopyRunner(provider_session(file, device), spec, store)
        options = session_options(spec.threads, device)
        open_session = partial(_open_session, bundle, spec, options)
        session = sessions.get((spec.file, options.intra_op_num_threads), open_session)
        if spec.block.lanes > 1:
            return OrtLanes(session, spec, HostKV(store.spec))
        return OrtRunner(session, spec, store)


def _require_version(spec: EngineSpec) -> None:
    """Check that this ONNX Runtime has the operators of an engine. Old bundles do not say which version has them.

    Raises:
        BackendError: ONNX Runtime is too old.
    """
    least = spec.needs.get("onnxruntime", "")
    if numbers(ort.__version__) < numbers(least):
        raise BackendError(
            f"engine {spec.name} needs ONNX Runtime {least} or newer, and here is {ort.__version__}; "
            "pip install -U onnxruntime"
        )


def _open_session(bundle: Bundle, spec: EngineSpec, options: ort.SessionOptions) -> ort.InferenceSession:
    """Check a file and load it on the CPU, once for all engines that share it.

    Weights of the operators of specc-kernels need no packing, so sessions of them map the bundle's.

    Raises:
        BundleError: the file is not what an engine's may be.
    """
    onnx_check.check(bundle, spec.file)
    if not kernels.needed(spec):
        return packed_weights.session(bundle, spec, options)
    kernels.register(options)
    return ort.InferenceSession(str(bundle.file(spec.file)), options, providers=packed_weights.PROVIDERS)


def _load_on_device(bundle: Bundle, spec: EngineSpec, store: DeviceKV, device: Device) -> DeviceRunner:
    """Load an engine on a GPU. Its launches are captured if the provider can, and if all of its nodes run there.

    Raises:
        BundleError: a file is not what an engine's may be.
    """
    for name in filter(None, (spec.file, spec.commit)):
        onnx_check.check(bundle, name)
    committer = provider_session(bundle.file(spec.commit), device) if spec.commit else None
    plain = partial(provider_session, bundle.file(spec.file), device)
    if captures(device.runs.title):
        try:
            return DeviceRunner(plain(graphs=True), spec, store, committer, plain)
        except BackendError:
            raise
        except Exception as e:  # ONNX Runtime refuses a capture by an error of no particular class.
            warn_uncaptured(spec.name, e)
    return DeviceRunner(plain(), spec, store, committer)
