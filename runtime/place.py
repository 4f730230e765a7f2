"""Where engines run."""

from __future__ import annotations

from dataclasses import dataclass

from .errors import BackendError

PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
EXTRAS = {"cpu": "specc[cpu]", "cuda": "specc[gpu]", "tensorrt": "specc[gpu]", "openvino": "specc[openvino]"}


@dataclass(frozen=True)
class Place:
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
        if self.provider in ("cuda", "tensorrt") and self.device == "cpu":
            raise BackendError(f"execution provider {self.provider!r} runs on a GPU; add --device cuda")
        if self.provider in ("cpu", "openvino") and self.device != "cpu":
            raise BackendError(f"execution provider {self.provider!r} runs on the CPU; leave out --device")


CPU = Place()
