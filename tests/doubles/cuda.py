"""CUDA over host memory: addresses, copies, streams and captured graphs are real as far as the rows show them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

from .recorder import FunctionRecorder, installed

STREAM = 77


class FakeCuda:
    """A GPU whose memory is the host's.

    Attributes:
        cuda: stands for `cuda.bindings.runtime`.
        calls: every call of it, as (name, *arguments).
        memory: each allocation by its address. It begins as 0xFF bytes, which are NaN as floats.
        captured: the launches of the capture in progress, None outside a capture.
        bytes_free: what cudaMemGetInfo says.
    """

    def __init__(self, free: int = 1 << 30) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.memory: dict[int, np.ndarray] = {}
        self.captured: list[Callable[[], None]] | None = None
        self.bytes_free = free
        real = installed("cuda.bindings.runtime")
        self.cuda: Any = FunctionRecorder(
            self.calls,
            real,
            {
                "cudaStreamCreate": lambda: (0, STREAM),
                "cudaMemGetInfo": lambda: (0, self.bytes_free, 1 << 30),
                "cudaMalloc": self.malloc,
                "cudaFree": self.free,
                "cudaMemsetAsync": self.memset,
                "cudaMemcpyAsync": self.memcpy,
                "cudaStreamSynchronize": self.synchronize,
                "cudaStreamBeginCapture": self.begin_capture,
                "cudaStreamEndCapture": self.end_capture,
                "cudaGraphInstantiate": lambda graph, flags: (0, graph),
                "cudaGraphLaunch": self.launch,
                "cudaDeviceGetAttribute": lambda kind, device: (0, kind),
                "cudaGetLastError": lambda: (0,),
            },
        )
        for name, values in (
            ("cudaError_t", {"cudaSuccess": 0}),
            ("cudaMemcpyKind", {"cudaMemcpyHostToDevice": 1, "cudaMemcpyDeviceToHost": 2}),
            (
                "cudaDeviceAttr",
                {"cudaDevAttrComputeCapabilityMajor": 8, "cudaDevAttrComputeCapabilityMinor": 9},
            ),
            ("cudaStreamCaptureMode", {"cudaStreamCaptureModeThreadLocal": 1}),
        ):
            assert real is None or all(hasattr(getattr(real, name), key) for key in values)
            setattr(self.cuda, name, SimpleNamespace(**values))

    def malloc(self, size: int) -> tuple[int, int]:
        buffer = np.full(size, 0xFF, np.uint8)
        self.memory[buffer.ctypes.data] = buffer
        return 0, buffer.ctypes.data

    def free(self, address: int) -> tuple[int]:
        del self.memory[address]
        return (0,)

    def memset(self, address: int, value: int, size: int, stream: int) -> tuple[int]:
        self.memory[address][:size] = value
        return (0,)

    def memcpy(self, target: int, source: int, size: int, kind: int, stream: int) -> tuple[int]:
        assert self.captured is None, "copies of pageable memory cannot be captured"
        ctypes.memmove(target, source, size)
        return (0,)

    def synchronize(self, stream: int) -> tuple[int]:
        assert self.captured is None, "a stream cannot be waited for while it is captured"
        return (0,)

    def begin_capture(self, stream: int, mode: int) -> tuple[int]:
        self.captured = []
        return (0,)

    def end_capture(self, stream: int) -> tuple[int, Any]:
        graph, self.captured = self.captured, None
        return 0, graph

    def launch(self, graph: Any, stream: int) -> tuple[int]:
        for launch in graph:
            launch()
        return (0,)
