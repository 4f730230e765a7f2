"""CUDA's memory and graphs, on a double: there is no GPU here."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles.cuda import FakeCuda

from specc.runtime.engines.cuda import Gpu
from specc.runtime.errors import BackendError


@pytest.fixture
def cuda() -> FakeCuda:
    return FakeCuda()


@pytest.fixture
def gpu(cuda: FakeCuda) -> Gpu:
    return Gpu(cuda.cuda)


def test_memory_is_zero_whatever_it_held(cuda: FakeCuda, gpu: Gpu) -> None:
    address = gpu.allocate(16)
    assert cuda.memory[address].tolist() == [0] * 16


def test_memory_that_the_gpu_lacks_is_refused_with_both_sizes(cuda: FakeCuda, gpu: Gpu) -> None:
    cuda.bytes_free = 3 << 20
    with pytest.raises(BackendError, match="3 MiB free and 10 MiB more are needed"):
        gpu.allocate(10 << 20)


@pytest.mark.parametrize("text", [b"out of memory", "out of memory"])
def test_a_failed_call_gives_cudas_own_text(text: str | bytes, cuda: FakeCuda, gpu: Gpu) -> None:
    cuda.cuda.methods["cudaGetErrorString"] = lambda error: (0, text)
    with pytest.raises(BackendError, match="CUDA: out of memory; specc doctor says what this machine lacks"):
        gpu.check((2, None))


def test_an_array_goes_to_the_gpu_and_back(gpu: Gpu) -> None:
    source, received = np.arange(6, dtype=np.int64), np.zeros(6, np.int64)
    address = gpu.allocate(source.nbytes)
    gpu.upload(address, source)
    gpu.download(received, address)
    gpu.synchronise()
    assert received.tolist() == source.tolist()


def test_the_compute_capability_is_major_and_minor(gpu: Gpu) -> None:
    assert gpu.capability() == "8.9"


def test_scratch_memory_grows_and_is_freed_only_after_a_wait(cuda: FakeCuda, gpu: Gpu) -> None:
    gpu.reserve(64)
    first = gpu.scratch
    gpu.reserve(32)
    assert gpu.scratch == first
    gpu.reserve(128)
    names = [name for name, *_ in cuda.calls]
    assert first not in cuda.memory and gpu.scratch in cuda.memory and gpu.scratch_bytes == 128
    assert names.index("cudaFree") > len(names) - names[::-1].index("cudaStreamSynchronize") - 1


def test_a_weight_is_uploaded_once_and_a_missing_one_is_named(cuda: FakeCuda, gpu: Gpu, tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    header = b'{"bias":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    file.write_bytes(len(header).to_bytes(8, "little") + header + np.array([100], np.float32).tobytes())
    address = gpu.weight(file, "bias")
    assert cuda.memory[address].view(np.float32).tolist() == [100] and gpu.weight(file, "bias") == address
    with pytest.raises(BackendError, match="has no 'head', which an engine takes; compile the bundle again"):
        gpu.weight(file, "head")


def test_threads_that_load_engines_at_once_share_one_copy_of_a_weight_and_one_scratch_memory(
    cuda: FakeCuda, gpu: Gpu, tmp_path: Path
) -> None:
    file, malloc = tmp_path / "w.safetensors", cuda.cuda.methods["cudaMalloc"]
    header = b'{"bias":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    file.write_bytes(len(header).to_bytes(8, "little") + header + np.array([100], np.float32).tobytes())

    def slow(size: int) -> Any:
        time.sleep(0.02)  # Another thread comes in here, if it may.
        return malloc(size)

    cuda.cuda.methods["cudaMalloc"] = slow
    begin = threading.Barrier(4)

    def load(number: int) -> int:
        begin.wait()
        address = gpu.weight(file, "bias")
        gpu.reserve(64 * number)
        return address

    with ThreadPoolExecutor(4) as pool:
        addresses = set(pool.map(load, (4, 3, 2, 1)))
    assert addresses == {*cuda.memory} - {gpu.scratch} and len(addresses) == 1
    assert gpu.scratch_bytes == 4 * 64 == len(cuda.memory[gpu.scratch])


@pytest.mark.parametrize("works", [True, False])
def test_launches_are_captured_and_replayed_or_there_is_no_graph(works: bool, cuda: FakeCuda, gpu: Gpu) -> None:
    result: list[int] = []

    def launch() -> bool:
        assert cuda.captured is not None
        cuda.captured.append(lambda: result.append(1))
        return works

    graph = gpu.capture(launch)
    assert (graph is not None) == works and result == []
    assert ("cudaGetLastError" in {name for name, *_ in cuda.calls}) != works
    if works:
        gpu.replay(graph)
        assert result == [1]
