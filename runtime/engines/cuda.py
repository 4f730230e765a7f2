"""What engines need of CUDA: memory, one stream, copies, and graphs of launches."""

from __future__ import annotations

import importlib
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BackendError
from .mapped_weights import Stored, tensors


class Gpu:
    """A GPU with one stream. Its engines share weights, and scratch memory since they run in turn.

    Attributes:
        cuda: the functions of `cuda.bindings.runtime`.
        stream: on which everything is put.
        scratch: address of the shared scratch memory, 0 before any is reserved.
        scratch_bytes: its size.
    """

    def __init__(self, cuda: Any) -> None:
        self.cuda = cuda
        (self.stream,) = self.check(cuda.cudaStreamCreate())
        self.scratch, self.scratch_bytes = 0, 0
        self._weights: dict[tuple[Path, str], int] = {}
        self._files: dict[Path, dict[str, Stored]] = {}
        self._lock = threading.Lock()  # Several threads load engines at once.

    def check(self, result: tuple[Any, ...]) -> tuple[Any, ...]:
        """Return the values of a CUDA call's result without its error code.

        Raises:
            BackendError: the call failed.
        """
        error, *values = result
        if error != self.cuda.cudaError_t.cudaSuccess:
            _, text = self.cuda.cudaGetErrorString(error)
            text = text.decode() if isinstance(text, bytes) else text
            raise BackendError(f"CUDA: {text}; specc doctor says what this machine lacks")
        return tuple(values)

    def capability(self) -> str:
        """Return the compute capability, such as 8.9."""
        attributes = self.cuda.cudaDeviceAttr
        kinds = attributes.cudaDevAttrComputeCapabilityMajor, attributes.cudaDevAttrComputeCapabilityMinor
        major, minor = (self.check(self.cuda.cudaDeviceGetAttribute(kind, 0))[0] for kind in kinds)
        return f"{major}.{minor}"

    def allocate(self, size: int) -> int:
        """Return the address of `size` bytes, all zero.

        Rows must begin as numbers: attention multiplies a masked row by 0, and 0 times NaN is NaN.

        Raises:
            BackendError: the GPU has less free.
        """
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
        """Free memory. Errors are ignored: at the end of a process CUDA may be gone already."""
        for address in addresses:
            self.cuda.cudaFree(address)

    def upload(self, address: int, array: np.ndarray) -> None:
        """Begin to copy a host array to the GPU. The array must not change before the stream is synchronised."""
        kind = self.cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self.check(self.cuda.cudaMemcpyAsync(address, array.ctypes.data, array.nbytes, kind, self.stream))

    def download(self, array: np.ndarray, address: int) -> None:
        """Begin to copy from the GPU to a host array, which is complete once the stream is synchronised."""
        kind = self.cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self.check(self.cuda.cudaMemcpyAsync(array.ctypes.data, address, array.nbytes, kind, self.stream))

    def synchronise(self) -> None:
        """Wait for all that was put on the stream."""
        self.check(self.cuda.cudaStreamSynchronize(self.stream))

    def weight(self, file: Path, name: str) -> int:
        """Return the address of a weight, which is uploaded at the first call.

        Raises:
            BackendError: the file has no such tensor, or the GPU is full.
        """
        with self._lock:
            if (file, name) not in self._weights:
                self._weights[file, name] = self._upload_weight(file, name)
            return self._weights[file, name]

    def _upload_weight(self, file: Path, name: str) -> int:
        """Return the address of a weight after it was uploaded. Raises BackendError as `weight` does."""
        if file not in self._files:
            self._files[file] = tensors(file)
        stored = self._files[file].get(name)
        if stored is None:
            raise BackendError(f"{file} has no {name!r}, which an engine takes; compile the bundle again")
        address = self.allocate(stored.data.nbytes)
        self.upload(address, stored.data)
        self.synchronise()  # Now the pages of the file may be dropped.
        return address

    def reserve(self, size: int) -> None:
        """Make the shared scratch memory at least `size` bytes. It may move."""
        with self._lock:
            if size > self.scratch_bytes:
                self.synchronise()
                self.free([self.scratch] if self.scratch else [])
                self.scratch, self.scratch_bytes = self.allocate(size), size

    def capture(self, launch: Callable[[], bool]) -> Any:
        """Capture launches as a graph.

        Args:
            launch: puts work on the stream, and returns whether that worked.

        Returns:
            A graph for `replay`, or None if the launches cannot be captured.
        """
        mode = self.cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self.check(self.cuda.cudaStreamBeginCapture(self.stream, mode))
        worked = launch()
        error, graph = self.cuda.cudaStreamEndCapture(self.stream)
        if not worked or error != self.cuda.cudaError_t.cudaSuccess:
            self.cuda.cudaGetLastError()  # This clears the error, which the next call would report otherwise.
            return None
        (executable,) = self.check(self.cuda.cudaGraphInstantiate(graph, 0))
        return executable

    def replay(self, graph: Any) -> None:
        """Launch a captured graph."""
        self.check(self.cuda.cudaGraphLaunch(graph, self.stream))


def bindings() -> Any:
    """Import CUDA's functions.

    Raises:
        BackendError: cuda-bindings is not installed.
    """
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except ImportError as e:
        raise BackendError(f"cuda-bindings is not installed ({e}); pip install cuda-bindings") from e
