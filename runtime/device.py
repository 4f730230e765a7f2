"""Where engines run."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import BackendError


@dataclass(frozen=True)
class Provider:
    """An execution provider. title: ONNX Runtime's name. extra: what brings it. plugin: a package of its own."""

    title: str
    device: str
    extra: str
    plugin: str = ""


PROVIDERS = {
    "cpu": Provider("CPUExecutionProvider", "cpu", "specc[cpu]"),
    "cuda": Provider("CUDAExecutionProvider", "cuda", "specc[gpu]"),
    "tensorrt": Provider("TensorrtExecutionProvider", "cuda", "specc[gpu]"),
    "nv-tensorrt-rtx": Provider(
        "NvTensorRTRTXExecutionProvider", "cuda", "specc[nv-tensorrt-rtx]", "onnxruntime_ep_nv_tensorrt_rtx"
    ),
    "openvino": Provider("OpenVINOExecutionProvider", "cpu", "specc[openvino]", "onnxruntime_ep_openvino"),
}


@dataclass(frozen=True)
class Device:
    """device: cpu or cuda. provider: ONNX Runtime's, by a name of PROVIDERS. backend: whose engines, of a bundle that
    has several; None is the first that runs there."""

    device: str = "cpu"
    provider: str | None = None
    backend: str | None = None

    def __post_init__(self) -> None:
        if self.device not in ("cpu", "cuda"):
            raise BackendError(f"unknown device {self.device!r}; there are cpu and cuda")
        if self.provider not in (None, *PROVIDERS):
            raise BackendError(f"unknown execution provider {self.provider!r}; there are {', '.join(PROVIDERS)}")
        if self.provider and self.backend not in (None, "onnx"):
            raise BackendError(f"execution provider {self.provider!r} is of backend onnx, not {self.backend}; give one")
        if self.provider and PROVIDERS[self.provider].device != self.device:
            told = "the CPU; leave out --device" if self.device == "cuda" else "a GPU; add --device cuda"
            raise BackendError(f"execution provider {self.provider!r} runs on {told}")

    @property
    def runs(self) -> Provider:
        """The provider of ONNX Runtime that is asked for, or the device's own."""
        return PROVIDERS[self.provider or self.device]


CPU = Device()
