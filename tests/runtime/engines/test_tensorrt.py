"""The sequence of calls against TensorRT and CUDA, on doubles: it cannot run where there is no GPU.

The doubles refuse a call that the libraries' own signatures do not have. Their memory is real, so addresses, aliases
and what is kept show in the rows.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from specc.runtime.block import Block
from specc.runtime.bundle import Bundle
from specc.runtime.engine import Engine
from specc.runtime.engines.cuda import Gpu
from specc.runtime.engines.tensorrt import GpuKV, Kit, Runner
from specc.runtime.errors import BackendError
from specc.runtime.manifest import CacheSpec, EngineSpec, Tensor
from specc.runtime.sequence import Cache
from specc.runtime.tree import Tree

TREE = Tree((-1, 0, 0, 1, 2))
CAPACITY = 32
FAST = ("past_key_values.0.key", "present.0.key")
KINDS = {"str": str, "SupportsInt": int, "int": int, "Buffer": bytes, "Sequence": (tuple, list), "Dims": (tuple, list)}


def signatures(owner: Any, name: str) -> list[list[str]] | None:
    """The types of each overload's arguments, as pybind11 writes them; None where the library is not installed."""
    if owner is None:
        return None
    lines = getattr(owner, name).__doc__.splitlines()
    found = [m[1] for line in lines if (m := re.match(rf"\s*(?:\d+\. )?{name}\((.*)\)(?: ->.*)?$", line))]
    found = [f for f in found if not f.startswith("*args")]
    assert found, f"{name} has no signature"
    return [
        [re.sub(r"\[.*", "", a.partition(":")[2]).strip().split(" ")[0].split(".")[-1] for a in split(f)] for f in found
    ]


def split(arguments: str) -> list[str]:
    parts = [a for a in re.split(r",\s*(?![^\[]*\])", arguments) if a]
    return parts[1:] if parts and parts[0].startswith("self") else parts


class Double:
    """Records each call to `calls`, having held it against the signature of the class that it stands for."""

    def __init__(self, calls: list[tuple[Any, ...]], real: Any, does: dict[str, Callable[..., Any]]) -> None:
        self.calls, self.real, self.does = calls, real, does

    def __getattr__(self, name: str) -> Any:
        if name not in self.does:
            raise AttributeError(name)

        def call(*args: Any) -> Any:
            overloads = signatures(self.real, name)
            if overloads is not None:
                fits = [o for o in overloads if len(o) == len(args) and all(map(fitting, o, args))]
                assert fits, f"{name}{args} fits none of {overloads}"
            self.calls.append((name, *args))
            return self.does[name](*args)

        return call


def fitting(kind: str, value: Any) -> bool:
    return isinstance(value, KINDS[kind]) if kind in KINDS else True


class FakeGpu:
    """CUDA over host memory."""

    def __init__(self, free: int = 1 << 30) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.memory: dict[int, np.ndarray] = {}
        self.captured: list[Callable[[], None]] | None = None
        self.bytes_free = free
        try:
            from cuda.bindings import runtime as real
        except ImportError:
            real = None
        ok = SimpleNamespace(cudaSuccess=0)
        kinds = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)
        attributes = SimpleNamespace(cudaDevAttrComputeCapabilityMajor=8, cudaDevAttrComputeCapabilityMinor=9)
        mode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)
        names = ("StreamCreate", "MemGetInfo", "Malloc", "Free", "MemsetAsync", "MemcpyAsync", "StreamSynchronize")
        names += ("StreamBeginCapture", "StreamEndCapture", "GraphInstantiate", "GraphLaunch", "DeviceGetAttribute")
        does = {f"cuda{n}": getattr(self, n) for n in names}
        self.cuda = Cuda(self.calls, real, does)
        for name, value in (("cudaError_t", ok), ("cudaMemcpyKind", kinds), ("cudaDeviceAttr", attributes)):
            assert real is None or all(hasattr(getattr(real, name), key) for key in vars(value))
            setattr(self.cuda, name, value)
        assert real is None or all(hasattr(real.cudaStreamCaptureMode, key) for key in vars(mode))
        self.cuda.cudaStreamCaptureMode = mode

    def StreamCreate(self) -> tuple[int, int]:
        return 0, 77

    def MemGetInfo(self) -> tuple[int, int, int]:
        return 0, self.bytes_free, 1 << 30

    def Malloc(self, size: int) -> tuple[int, int]:
        buffer = np.full(size, 0xFF, np.uint8)
        self.memory[buffer.ctypes.data] = buffer
        return 0, buffer.ctypes.data

    def Free(self, address: int) -> tuple[int]:
        del self.memory[address]
        return (0,)

    def MemsetAsync(self, address: int, value: int, size: int, stream: int) -> tuple[int]:
        self.memory[address][:size] = value
        return (0,)

    def MemcpyAsync(self, to: int, source: int, size: int, kind: int, stream: int) -> tuple[int]:
        assert self.captured is None, "copies of pageable memory cannot be captured"
        ctypes.memmove(to, source, size)
        return (0,)

    def StreamSynchronize(self, stream: int) -> tuple[int]:
        assert self.captured is None
        return (0,)

    def DeviceGetAttribute(self, kind: int, device: int) -> tuple[int, int]:
        return 0, kind

    def StreamBeginCapture(self, stream: int, mode: int) -> tuple[int]:
        self.captured = []
        return (0,)

    def StreamEndCapture(self, stream: int) -> tuple[int, Any]:
        graph, self.captured = self.captured, None
        return 0, graph

    def GraphInstantiate(self, graph: Any, flags: int) -> tuple[int, Any]:
        return 0, graph

    def GraphLaunch(self, graph: Any, stream: int) -> tuple[int]:
        for launch in graph:
            launch()
        return (0,)


class Cuda(Double):
    """Functions of a module, told by their names and numbers of arguments."""

    def __getattr__(self, name: str) -> Any:
        if name not in self.does:
            raise AttributeError(name)

        def call(*args: Any) -> Any:
            if self.real is not None:
                told = getattr(self.real, name).__doc__.splitlines()[0]
                count = len([a for a in told.partition("(")[2].rpartition(")")[0].split(",") if a.strip()])
                assert count == len(args), f"{name}{args} against {told}"
            self.calls.append((name, *args))
            return self.does[name](*args)

        return call


class Logger:
    ERROR = 1

    def __init__(self, severity: int) -> None: ...


class Library:
    """TensorRT: engines by file name, each a function of its tensors' addresses."""

    __name__, __version__ = "tensorrt_rtx", "1.7"

    def __init__(
        self, gpu: FakeGpu, engines: dict[bytes, tuple[dict[str, str], Callable[..., None]]], scratch: int = 64
    ) -> None:
        try:
            import tensorrt_rtx as real
        except ImportError:
            real = SimpleNamespace(Runtime=None, ICudaEngine=None, IExecutionContext=None)
        self.real, self.gpu, self.engines, self.scratch = real, gpu, engines, scratch
        self.capturable = True
        self.Logger = Logger
        assert real.Runtime is None or hasattr(real.Logger, "ERROR")
        self.ExecutionContextAllocationStrategy = SimpleNamespace(USER_MANAGED=2)
        self.TensorIOMode = SimpleNamespace(INPUT=SimpleNamespace(name="INPUT"), OUTPUT=SimpleNamespace(name="OUTPUT"))
        assert real.Runtime is None or all(hasattr(real.TensorIOMode, n) for n in vars(self.TensorIOMode))

    def __getattr__(self, name: str) -> Any:
        if name == "Runtime":
            return lambda logger: Double(self.gpu.calls, self.real.Runtime, {"deserialize_cuda_engine": self._engine})
        raise AttributeError(name)

    def _engine(self, data: bytes) -> Any:
        if data not in self.engines:
            return None
        names, does = self.engines[data]
        made = Double(
            self.gpu.calls, self.real.ICudaEngine,
            {
                "create_execution_context": lambda strategy: self._context(names, does),
                "get_tensor_name": lambda i: [*names][i],
                "get_aliased_input_tensor": lambda name: names[name],
                "get_tensor_mode": lambda name: getattr(self.TensorIOMode, "OUTPUT" if OUT.match(name) else "INPUT"),
            },
        )  # fmt: skip
        assert self.real.ICudaEngine is None or hasattr(self.real.ICudaEngine, "device_memory_size_v2")
        made.num_io_tensors, made.device_memory_size_v2 = len(names), self.scratch
        return made

    def _context(self, names: dict[str, str], does: Callable[..., None]) -> Double:
        addresses: dict[str, int] = {}
        memory: list[int] = []

        def address(name: str, at: int) -> bool:
            addresses[name] = at
            return True

        def execute(stream: int) -> bool:
            assert stream == 77 and memory and memory[-1] in self.gpu.memory, "scratch was freed"
            launch = lambda: does({n: self.gpu.memory[a] for n, a in addresses.items()})  # noqa: E731
            if self.gpu.captured is None:
                launch()
            elif not self.capturable:
                return False
            else:
                self.gpu.captured.append(launch)
            return True

        return Double(
            self.gpu.calls, self.real.IExecutionContext,
            {
                "set_input_shape": lambda name, shape: True,
                "set_tensor_address": address,
                "infer_shapes": list,
                "set_device_memory": lambda at, size: memory.append(at),
                "execute_async_v3": execute,
            },
        )  # fmt: skip


def verify(m: dict[str, np.ndarray]) -> None:
    """Keys of size 1 are the tokens plus a weight; ids are the tokens doubled."""
    tokens, past = m["input_ids"].view(np.int64), int(m["past_len"].view(np.int64)[0])
    rows = (tokens + m["bias"].view(np.float32)[0]).astype(np.float32)
    m["rows.0.key"].view(np.float32)[:] = rows
    m["present.0.key"].view(np.float32)[past : past + len(tokens)] = rows
    m["ids"].view(np.int64)[:] = 2 * tokens


def commit_rows(m: dict[str, np.ndarray]) -> None:
    past, index = int(m["past_len"].view(np.int64)[0]), m["index"].view(np.int64)
    rows = m["rows.0.key"].view(np.float32)[index]
    m["present.0.key"].view(np.float32)[past : past + len(index)] = rows


OUT = re.compile(r"ids|rows|present|output")  # what an output's name begins with, but for a commit's rows
VERIFY = dict.fromkeys(("input_ids", "past_len", "past_key_values.0.key", "bias", "ids", "rows.0.key"), "")
VERIFY |= {"present.0.key": "past_key_values.0.key"}
KEEP = {"index": "", "past_len": "", "past_key_values.0.key": "", "rows.0.key": "", "present.0.key": FAST[0]}


def write_weights(file: Path) -> None:
    header = b'{"bias":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    file.write_bytes(len(header).to_bytes(8, "little") + header + np.float32([100]).tobytes())


class Setup:
    def __init__(self, path: Path, **library: Any) -> None:
        write_weights(path / "w.safetensors")
        (path / "v.trt").write_bytes(b"verify")
        (path / "k.trt").write_bytes(b"keep")
        self.gpu = FakeGpu()
        self.device = Gpu(self.gpu.cuda)
        self.library = Library(self.gpu, {b"verify": (VERIFY, verify), b"keep": (KEEP, commit_rows)}, **library)
        cache = Tensor(FAST[0], "float", (1, 1, CAPACITY, 1)), Tensor(FAST[1], "float", (1, 1, CAPACITY, 1))
        n = TREE.slots
        inputs = Tensor("input_ids", "int64", (1, n)), Tensor("past_len", "int64", (1,)), cache[0]
        outputs = Tensor("ids", "int64", (1, n)), cache[1], Tensor("rows.0.key", "float", (1, 1, n, 1))
        self.spec = EngineSpec(
            "verify", "tensorrt-rtx", "v.trt", Block(TREE, ("ids",)), (), (*inputs, Tensor("bias", "float", (1,))),
            outputs, (), "w.safetensors", {"tensorrt_rtx": "1.7", "compute_capability": "8.9"}, "k.trt",
        )  # fmt: skip
        self.bundle = SimpleNamespace(file=lambda name: path / name)
        rows = SimpleNamespace(layers={"0": (1, 1)}, capacity=CAPACITY, dtype="float")
        self.rows = GpuKV(rows, self.device)
        self.kit = Kit("tensorrt-rtx", self.library, self.device)
        self.kit.check(self.spec)
        self.runner = Runner(self.kit, self.bundle, self.spec, self.rows)
        self.engine = Engine("verify", self.spec.block, self.runner, self.rows)
        self.cache = Cache(self.rows)

    def keys(self) -> list[float]:
        return self.gpu.memory[self.rows.addresses["0.key"]].view(np.float32).tolist()

    def names(self) -> list[str]:
        return [call[0] for call in self.gpu.calls]


def test_steps_run_and_rows_are_kept(tmp_path: Path) -> None:
    """A plain run, then a captured graph, then its replay, over one cache; accepted slots 0, 2, 4 of each tree."""
    s, kept = Setup(tmp_path), []
    for step in range(4):
        tokens = [10 * step + i for i in range(5)]
        outputs = s.engine.run(s.cache, tokens, TREE)
        assert outputs.ids_N.tolist() == [2 * t for t in tokens]
        s.engine.commit(s.cache, [0, 2, 4])
        kept += [100.0 + tokens[i] for i in (0, 2, 4)]
        assert s.keys()[: len(kept)] == kept and len(s.cache) == len(kept)
    assert s.keys()[len(kept) + 5 :] == [0.0] * (CAPACITY - len(kept) - 5)


def test_the_order_of_the_calls(tmp_path: Path) -> None:
    s = Setup(tmp_path)
    names = s.names()
    first = names.index("create_execution_context")
    assert names[first + 1] == "set_input_shape" and names.index("infer_shapes") > names.index("set_tensor_address")
    assert "execute_async_v3" not in names and "set_device_memory" not in names
    del s.gpu.calls[:]
    steps = []
    for _ in range(3):
        s.engine.run(s.cache, [1, 2, 3, 4, 5], TREE)
        steps.append(s.names())
        del s.gpu.calls[:]
    upload, download = ["cudaMemcpyAsync"] * 2, ["cudaMemcpyAsync", "cudaStreamSynchronize"]
    assert steps[0] == [*upload, "set_device_memory", "execute_async_v3", *download]
    captured = ["cudaStreamBeginCapture", "execute_async_v3", "cudaStreamEndCapture", "cudaGraphInstantiate"]
    assert steps[1] == [*upload, "cudaStreamSynchronize", *captured, "cudaGraphLaunch", *download]
    assert steps[2] == [*upload, "cudaGraphLaunch", *download]


def test_past_and_present_lie_at_one_address_and_weights_are_uploaded_once(tmp_path: Path) -> None:
    s = Setup(tmp_path)
    addresses = {call[1]: call[2] for call in s.gpu.calls if call[0] == "set_tensor_address"}
    assert addresses[FAST[0]] == addresses[FAST[1]] == s.rows.addresses["0.key"]
    second = Runner(s.kit, s.bundle, s.spec, s.rows)
    assert second.addresses["bias"] == s.runner.addresses["bias"] != 0
    assert second.addresses["rows.0.key"] != s.runner.addresses["rows.0.key"]


def test_a_graph_is_captured_again_when_scratch_grows(tmp_path: Path) -> None:
    s = Setup(tmp_path)
    for _ in range(2):
        s.engine.run(s.cache, [1, 2, 3, 4, 5], TREE)
    assert s.runner.launcher.graph is not None
    s.library.scratch = 1 << 12
    Runner(s.kit, s.bundle, s.spec, s.rows)
    s.engine.run(s.cache, [1, 2, 3, 4, 5], TREE)
    assert s.runner.launcher.graph is None and s.names().count("set_device_memory") == 2
    s.engine.run(s.cache, [1, 2, 3, 4, 5], TREE)
    assert s.runner.launcher.graph is not None and s.engine.outputs.ids_N.tolist() == [2, 4, 6, 8, 10]


def test_what_cannot_be_captured_runs_plainly(tmp_path: Path) -> None:
    s = Setup(tmp_path)
    s.library.capturable = False
    s.gpu.cuda.does["cudaGetLastError"] = lambda: (0,)
    for i in range(3):
        assert s.engine.run(s.cache, [i] * 5, TREE).ids_N.tolist() == [2 * i] * 5
    assert s.runner.launcher.plain and s.names().count("cudaStreamBeginCapture") == 1


def test_an_engine_for_another_gpu_or_version_is_refused_before_it_is_loaded(tmp_path: Path) -> None:
    s = Setup(tmp_path)
    loads = s.names().count("deserialize_cuda_engine")
    for what, wanted in (("compute_capability", "12.0"), ("tensorrt_rtx", "1.6")):
        other = EngineSpec(**(vars(s.spec) | {"needs": {what: wanted}}))
        with pytest.raises(BackendError, match=f"built for {what} {wanted} and here is .*compile again"):
            s.kit.check(other)
    assert s.names().count("deserialize_cuda_engine") == loads
    (tmp_path / "v.trt").write_bytes(b"rust")
    with pytest.raises(BackendError, match=r"cannot load v\.trt; compile the bundle again here"):
        s.kit.engine(s.bundle, "v.trt")


def test_memory_that_is_not_there_is_named(tmp_path: Path) -> None:
    s = Setup(tmp_path)
    s.gpu.bytes_free = 3 << 20
    with pytest.raises(BackendError, match="3 MiB free and 10 MiB more are needed"):
        s.device.allocate(10 << 20)


def test_a_cuda_error_is_told(tmp_path: Path) -> None:
    s = Setup(tmp_path)
    s.gpu.cuda.does["cudaGetErrorString"] = lambda error: (0, b"out of memory")
    with pytest.raises(BackendError, match="CUDA: out of memory"):
        s.device.check((2, None))


def test_rows_go_with_their_owner(tmp_path: Path) -> None:
    s = Setup(tmp_path)
    rows = GpuKV(CacheSpec(CAPACITY, {"0": (1, 1)}, "float"), s.device)
    address = rows.addresses["0.key"]
    assert address in s.gpu.memory
    del rows
    assert address not in s.gpu.memory


def test_the_doubles_refuse_what_the_libraries_lack() -> None:
    """The control: a wrong type, a wrong count."""
    trt = pytest.importorskip("tensorrt_rtx")
    context = Double(
        [], trt.IExecutionContext, {"set_tensor_address": lambda *a: True, "execute_async_v3": lambda *a: True}
    )
    for name, args in (("set_tensor_address", (1, "x")), ("set_tensor_address", ("x",)), ("execute_async_v3", ("s",))):
        with pytest.raises(AssertionError, match="fits none"):
            getattr(context, name)(*args)
    assert context.set_tensor_address("x", 1)


def apart(m: dict[str, np.ndarray]) -> None:
    """The same engine by torch-tensorrt: its own names, and the cache is only read."""
    names = {"arg_0": "input_ids", "arg_1": "past_len", "arg_3": "bias", "output0": "ids", "output1": "rows.0.key"}
    verify({names[n]: a for n, a in m.items() if n in names} | {"present.0.key": m["arg_2"].copy()})


class TestEnginesThatOnlyRead:
    """Their tensors are told by order, and the commit engine writes what they return."""

    APART = dict.fromkeys(("arg_0", "arg_1", "arg_2", "arg_3", "output0", "output1"), "")

    def setup(self, path: Path, names: dict[str, str] = APART) -> Setup:
        s = Setup(path)
        s.library.engines[b"verify"] = names, apart
        outputs = tuple(t for t in s.spec.outputs if not t.name.startswith("present."))
        s.spec = EngineSpec(**(vars(s.spec) | {"backend": "torch-tensorrt", "outputs": outputs}))
        s.kit = Kit("torch-tensorrt", s.library, s.device, numbered=True)
        s.runner = Runner(s.kit, s.bundle, s.spec, s.rows)
        s.engine = Engine("verify", s.spec.block, s.runner, s.rows)
        return s

    def test_rows_are_written_by_each_run_and_kept_after_it(self, tmp_path: Path) -> None:
        s, kept = self.setup(tmp_path), []
        for step in range(4):
            tokens = [10 * step + i for i in range(5)]
            assert s.engine.run(s.cache, tokens, TREE).ids_N.tolist() == [2 * t for t in tokens]
            assert s.keys()[len(kept) : len(kept) + 5] == [100.0 + t for t in tokens]  # a later draft reads them
            s.engine.commit(s.cache, [0, 2, 4] if step % 2 else [0, 1, 2])
            kept += [100.0 + tokens[i] for i in ((0, 2, 4) if step % 2 else (0, 1, 2))]
            assert s.keys()[: len(kept)] == kept

    def test_a_step_synchronises_once(self, tmp_path: Path) -> None:
        s = self.setup(tmp_path)
        for _ in range(3):
            del s.gpu.calls[:]
            s.engine.run(s.cache, [1, 2, 3, 4, 5], TREE)
        upload, download = ["cudaMemcpyAsync"] * 2, ["cudaMemcpyAsync", "cudaStreamSynchronize"]
        assert s.names() == [*upload, "cudaGraphLaunch", "cudaMemcpyAsync", "cudaGraphLaunch", *download]

    def test_an_engine_of_other_tensors_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(BackendError, match="has 3 inputs and the manifest 4; compile the bundle again"):
            self.setup(tmp_path, {n: "" for n in self.APART if n != "arg_3"})


def test_what_holds_a_bundle_is_a_bundle() -> None:
    """What the double of a bundle has, a bundle has."""
    assert hasattr(Bundle, "file")
