"""What engines need of CUDA: memory, one stream, copies, and graphs of launches."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BackendError
from .mapped_weights import Stored, tensors


class Gpu:
    """The GPU, by `cuda.bindings.runtime` or what has its functions. Engines share its weights and its scratch."""

    def __init__(self, cuda: Any) -> None:
        self.cuda = cuda
        (self.stream,) = self.check(cuda.cudaStreamCreate())
        self.scratch, self.scratch_bytes = 0, 0
        self._weights: dict[tuple[Path, str], int] = {}
        self._files: dict[Path, dict[str, Stored]] = {}

    def check(self, result: tuple[Any, ...]) -> tuple[Any, ...]:
        """A call's values. Raises BackendError where it failed."""
        error, *values = result
        if error != self.cuda.cudaError_t.cudaSuccess:
            _, told = self.cuda.cudaGetErrorString(error)
            told = told.decode() if isinstance(told, bytes) else told
            raise BackendError(f"CUDA: {told}; specc doctor says what this machine lacks")
        return tuple(values)

    def capability(self) -> str:
        kinds = self.cuda.cudaDeviceAttr
        wanted = kinds.cudaDevAttrComputeCapabilityMajor, kinds.cudaDevAttrComputeCapabilityMinor
        major, minor = (self.check(self.cuda.cudaDeviceGetAttribute(kind, 0))[0] for kind in wanted)
        return f"{major}.{minor}"

    def allocate(self, size: int) -> int:
        """So many bytes, all zero: what a mask hides is multiplied by 0, and must be a number. Raises BackendError."""
        free, _ = self.check(self.cuda.cudaMemGetInfo())
        if size > free:
            raise BackendError(
                f"the GPU has {free >> 20} MiB free and {size >> 20} MiB more are needed; free some, or compile with a "
                "smaller --max-seq-len"
            )
        (address,) = self.check(self.cuda.cudaMalloc(size))
        self.check(self.cuda.cudaMemsetAsync(address, 0, size, self.stream))
        return int(address)

    def free(self, addresses: list[int]) -> None:
        for address in addresses:
            self.cuda.cudaFree(address)

    def upload(self, address: int, array: np.ndarray) -> None:
        kind = self.cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self.check(self.cuda.cudaMemcpyAsync(address, array.ctypes.data, array.nbytes, kind, self.stream))

    def download(self, array: np.ndarray, address: int) -> None:
        kind = self.cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self.check(self.cuda.cudaMemcpyAsync(array.ctypes.data, address, array.nbytes, kind, self.stream))

    def synchronise(self) -> None:
        self.check(self.cuda.cudaStreamSynchronize(self.stream))

    def weight(self, file: Path, name: str) -> int:
        """Where a weight lies; uploaded when first asked for. Raises BackendError."""
        if (file, name) not in self._weights:
            if file not in self._files:
                self._files[file] = tensors(file)
            held = self._files[file]
            if name not in held:
                raise BackendError(f"{file} has no {name!r}, which an engine takes; compile the bundle again")
            data = held[name].data
            address = self.allocate(data.nbytes)
            self.upload(address, data)
            self.synchronise()  # the file's pages may go
            self._weights[file, name] = address
        return self._weights[file, name]

    def reserve(self, size: int) -> None:
        """Scratch of so many bytes, which engines that run in turn share."""
        if size > self.scratch_bytes:
            self.synchronise()
            self.free([self.scratch] if self.scratch else [])
            self.scratch, self.scratch_bytes = self.allocate(size), size

    def capture(self, launch: Any) -> Any:
        """A graph of what `launch()` puts on the stream; None where it cannot be captured."""
        mode = self.cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self.check(self.cuda.cudaStreamBeginCapture(self.stream, mode))
        launched = launch()
        error, graph = self.cuda.cudaStreamEndCapture(self.stream)
        if not launched or error != self.cuda.cudaError_t.cudaSuccess:
            self.cuda.cudaGetLastError()  # else the next call reports it
            return None
        (made,) = self.check(self.cuda.cudaGraphInstantiate(graph, 0))
        return made

    def replay(self, graph: Any) -> None:
        self.check(self.cuda.cudaGraphLaunch(graph, self.stream))


def bindings() -> Any:
    """CUDA's functions. Raises BackendError."""
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except ImportError as e:
        raise BackendError(f"cuda-bindings is not installed ({e}); pip install cuda-bindings") from e
