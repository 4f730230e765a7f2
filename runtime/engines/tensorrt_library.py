"""Read the last error of a TensorRT library, and find the compute capabilities that it can build for."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from .versions import numbers

if TYPE_CHECKING:
    from tensorrt_rtx import ComputeCapability, Library

UNSUPPORTED = "does not support this compute capability"  # in the words of TensorRT for RTX
NO_REASON = "the library gave no reason"


def listener(trt: Library) -> Any:
    """Return a logger that keeps the last error and prints nothing."""
    logger: Any = trt.ILogger

    class Listener(logger):  # type: ignore[misc]
        last = NO_REASON

        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.Severity.ERROR, trt.ILogger.Severity.INTERNAL_ERROR):
                self.last = message.replace("\n", " ")

    return Listener()


def remedy(reason: str) -> str:
    """Return what a person can do about a reason with which the library refuses an engine."""
    if UNSUPPORTED in reason:
        return "no compile for this GPU helps; take another GPU, or compile with another --backend, such as onnx"
    return "compile the bundle again here"


def named_capabilities(trt: Library) -> dict[str, ComputeCapability]:
    """Return the library's names of GPUs, by compute capability such as "8.9"."""
    return {
        f"{int(name[2:]) // 10}.{int(name[2:]) % 10}": value
        for name, value in trt.ComputeCapability.__members__.items()
        if re.fullmatch(r"SM\d+", name)
    }


def without_name(trt: Library, capability: str) -> str:
    """Say that the library does not run on GPUs of a compute capability; the text is empty if it may.

    TensorRT for RTX 1.7.1 has no name for 9.0. It builds there for the current GPU, and then refuses to load what it
    built. A GPU that is newer than all names may run engines that are built for the current one.
    """
    names = named_capabilities(trt)
    if capability in names or all(numbers(capability) > numbers(name) for name in names):
        return ""
    return f"{trt.__name__} {trt.__version__} has no {capability!r}; it has {', '.join(names)}"
