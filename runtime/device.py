"""The device, the execution provider and the backend that engines run on."""

from __future__ import annotations

from dataclasses import dataclass

from .environment import MOST_THREADS, threads
from .errors import BackendError


@dataclass(frozen=True)
class Provider:
    """An execution provider of ONNX Runtime.

    Attributes:
        title: ONNX Runtime's name for it.
        device: where it runs, `cpu` or `cuda`.
        extra: the extra of specc that installs it.
        plugin: the Python package of a provider that is a plug-in; empty for those inside ONNX Runtime.
    """

    title: str
    device: str
    extra: str
    plugin: str = ""


PROVIDERS = {
    "cpu": Provider("CPUExecutionProvider", "cpu", "cpu"),
    "cuda": Provider("CUDAExecutionProvider", "cuda", "gpu"),
    "tensorrt": Provider("TensorrtExecutionProvider", "cuda", "gpu"),
    "nv-tensorrt-rtx": Provider(
        "NvTensorRTRTXExecutionProvider", "cuda", "nv-tensorrt-rtx", "onnxruntime_ep_nv_tensorrt_rtx"
    ),
    "openvino": Provider("OpenVINOExecutionProvider", "cpu", "openvino", "onnxruntime_ep_openvino"),
}


@dataclass(frozen=True)
class Device:
    """What a session runs its engines on.

    Attributes:
        device: `cpu` or `cuda`.
        provider: an execution provider of ONNX Runtime, by its name in `PROVIDERS`; None is the device's own.
        backend: the backend whose engines run, if a bundle has several; None is the first that runs on the device.
        threads: threads of one engine on the CPU; None is as many as SPECC_THREADS or the process has.
    """

    device: str = "cpu"
    provider: str | None = None
    backend: str | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.device not in ("cpu", "cuda"):
            raise BackendError(f"unknown device {self.device!r}; choose cpu or cuda")
        if self.provider not in (None, *PROVIDERS):
            raise BackendError(f"unknown execution provider {self.provider!r}; choose one of {', '.join(PROVIDERS)}")
        if self.provider and self.backend not in (None, "onnx"):
            raise BackendError(
                f"execution provider {self.provider!r} belongs to backend onnx, not to {self.backend}; give only one"
            )
        if self.provider and PROVIDERS[self.provider].device != self.device:
            remedy = "the CPU; leave out --device" if self.device == "cuda" else "a GPU; add --device cuda"
            raise BackendError(f"execution provider {self.provider!r} runs on {remedy}")

        if self.threads is not None and not _is_thread_count(self.threads):
            raise BackendError(f"threads is {self.threads!r}; give a whole number from 1 to {MOST_THREADS}")

    @property
    def engine_threads(self) -> int:
        """How many threads one engine may take on the CPU.

        Raises:
            BackendError: the device names none, and SPECC_THREADS is not a number of threads.
        """
        return threads() if self.threads is None else self.threads

    @property
    def runs(self) -> Provider:
        """The execution provider to use: `provider`, or the device's own."""
        return PROVIDERS[self.provider or self.device]


def _is_thread_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MOST_THREADS


CPU = Device()
