"""The order of calls against TensorRT, and the rows that it leaves, on doubles: there is no GPU here.

The memory of the doubles is real, so addresses, aliases and committed rows show in the cache.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from doubles.cuda import FakeCuda
from doubles.tensorrt import FakeTensorRT
from listed import bundle_of

from specc.runtime.block import Block
from specc.runtime.call import Call
from specc.runtime.device import Device
from specc.runtime.engine import Engine
from specc.runtime.engines import tensorrt
from specc.runtime.engines.cuda import Gpu
from specc.runtime.engines.session_cache import SessionCache
from specc.runtime.engines.tensorrt import GpuKV, Kit, TensorRTRunner
from specc.runtime.errors import BackendError
from specc.runtime.extras import package
from specc.runtime.manifest import CacheSpec, EngineSpec, Tensor
from specc.runtime.sequence import Cache
from specc.runtime.tree import Tree

TREE = Tree((-1, 0, 0, 1, 2))
CAPACITY = 32
CACHE = CacheSpec(CAPACITY, {"0": (1, 1)}, "float32")
PAST, PRESENT, ROWS = "past_key_values.0.key", "present.0.key", "rows.0.key"
# The tensors of the verify engine and of its commit engine, each with the input that it aliases.
VERIFY = {"input_ids": "", "past_len": "", PAST: "", "bias": "", "ids": "", ROWS: "", PRESENT: PAST}
COMMIT = {"index": "", "past_len": "", PAST: "", ROWS: "", PRESENT: PAST}
SPEC = EngineSpec(
    name="verify",
    backend="tensorrt-rtx",
    file="v.trt",
    block=Block(TREE, ("ids",)),
    layers=("0",),
    inputs=(
        Tensor("input_ids", "int64", (1, TREE.slots)),
        Tensor("past_len", "int64", (1,)),
        Tensor(PAST, "float32", (1, 1, CAPACITY, 1)),
        Tensor("bias", "float32", (1,)),
    ),
    outputs=(
        Tensor("ids", "int64", (1, TREE.slots)),
        Tensor(PRESENT, "float32", (1, 1, CAPACITY, 1)),
        Tensor(ROWS, "float32", (1, 1, TREE.slots, 1)),
    ),
    passes=(),
    weights="w.safetensors",
    needs={"tensorrt_rtx": "1.7", "compute_capability": "8.9"},
    commit="c.trt",
    weight_inputs={"bias": "bias"},
)
UPLOADS, DOWNLOAD = ["cudaMemcpyAsync"] * 2, ["cudaMemcpyAsync", "cudaStreamSynchronize"]


def verify(memory: dict[str, np.ndarray]) -> None:
    """Write keys of size 1, which are the tokens plus a weight, and ids, which are the tokens doubled."""
    tokens, past = memory["input_ids"].view(np.int64), int(memory["past_len"].view(np.int64)[0])
    rows = (tokens + memory["bias"].view(np.float32)[0]).astype(np.float32)
    memory[ROWS].view(np.float32)[:] = rows
    memory[PRESENT].view(np.float32)[past : past + len(tokens)] = rows
    memory["ids"].view(np.int64)[:] = 2 * tokens


def commit_rows(memory: dict[str, np.ndarray]) -> None:
    """Write the rows of the slots in `index` from `past_len` on."""
    past, index = int(memory["past_len"].view(np.int64)[0]), memory["index"].view(np.int64)
    rows = memory[ROWS].view(np.float32)[index]
    memory[PRESENT].view(np.float32)[past : past + len(index)] = rows


class Loaded:
    """A verify engine that is loaded on the doubles, with its cache."""

    def __init__(self, path: Path, spec: EngineSpec = SPEC, numbered: bool = False, engine: Any = None) -> None:
        header = b'{"bias":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
        weight = np.array([100], np.float32).tobytes()
        (path / "w.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + weight)
        (path / "v.trt").write_bytes(b"verify")
        (path / "c.trt").write_bytes(b"commit")
        self.bundle, self.spec = bundle_of(path), spec
        self.cuda = FakeCuda()
        self.gpu = Gpu(self.cuda.cuda)
        self.library = FakeTensorRT(
            self.cuda, {b"verify": engine or (VERIFY, verify), b"commit": (COMMIT, commit_rows)}
        )
        library: Any = self.library
        self.store = GpuKV(CACHE, self.gpu)
        self.kit = Kit(spec.backend, library, self.gpu, numbered)
        self.kit.check(spec)
        self.runner = self.load()
        self.engine = Engine("verify", spec.block, self.runner, self.store)
        self.cache = Cache(self.store)

    def load(self) -> TensorRTRunner:
        return TensorRTRunner(self.kit, self.bundle, self.spec, self.store)

    def run(self, tokens: list[int]) -> list[int]:
        return Call(self.engine, self.cache, 0, tokens, TREE).run().ids_N.tolist()

    def keys(self) -> list[float]:
        keys: list[float] = self.cuda.memory[self.store.addresses["0.key"]].view(np.float32).tolist()
        return keys

    def names(self) -> list[str]:
        return [call[0] for call in self.cuda.calls]


@pytest.fixture
def rig(tmp_path: Path) -> Loaded:
    return Loaded(tmp_path)


def test_steps_run_and_accepted_rows_are_committed(rig: Loaded) -> None:
    """A plain run, then a captured graph, then its replay, over one cache; slots 0, 2, 4 of each tree are accepted."""
    rows: list[float] = []
    for step in range(4):
        tokens = [10 * step + i for i in range(5)]
        assert rig.run(tokens) == [2 * t for t in tokens]
        rig.cache.commit(tokens, [0, 2, 4])
        rows += [100.0 + tokens[i] for i in (0, 2, 4)]
        assert rig.keys()[: len(rows)] == rows and len(rig.cache) == len(rows)
    assert rig.keys()[len(rows) + 5 :] == [0.0] * (CAPACITY - len(rows) - 5)


def test_the_order_of_the_calls(rig: Loaded) -> None:
    names = rig.names()
    first = names.index("create_execution_context")
    assert names[first + 1] == "set_input_shape" and names.index("infer_shapes") > names.index("set_tensor_address")
    assert "execute_async_v3" not in names and "set_device_memory" not in names
    del rig.cuda.calls[:]
    steps = []
    for _ in range(3):
        rig.run([1, 2, 3, 4, 5])
        steps.append(rig.names())
        del rig.cuda.calls[:]
    assert steps[0] == [*UPLOADS, "set_device_memory", "execute_async_v3", *DOWNLOAD]
    capture = ["cudaStreamBeginCapture", "execute_async_v3", "cudaStreamEndCapture", "cudaGraphInstantiate"]
    assert steps[1] == [*UPLOADS, "cudaStreamSynchronize", *capture, "cudaGraphLaunch", *DOWNLOAD]
    assert steps[2] == [*UPLOADS, "cudaGraphLaunch", *DOWNLOAD]


def test_past_and_present_lie_at_one_address_and_weights_are_uploaded_once(rig: Loaded) -> None:
    addresses = {call[1]: call[2] for call in rig.cuda.calls if call[0] == "set_tensor_address"}
    assert addresses[PAST] == addresses[PRESENT] == rig.store.addresses["0.key"]
    second = rig.load()
    assert second.addresses["bias"] == rig.runner.addresses["bias"] != 0
    assert second.addresses[ROWS] != rig.runner.addresses[ROWS]


def test_a_graph_is_captured_again_when_scratch_memory_grows(rig: Loaded) -> None:
    for _ in range(2):
        rig.run([1, 2, 3, 4, 5])
    assert rig.runner.launcher.graph is not None
    rig.library.scratch = 1 << 12
    rig.load()
    rig.run([1, 2, 3, 4, 5])
    assert rig.runner.launcher.graph is None and rig.names().count("set_device_memory") == 2
    assert rig.run([1, 2, 3, 4, 5]) == [2, 4, 6, 8, 10]
    assert rig.runner.launcher.graph is not None


def test_launches_that_cannot_be_captured_run_plainly(rig: Loaded) -> None:
    rig.library.capturable = False
    for i in range(3):
        assert rig.run([i] * 5) == [2 * i] * 5
    assert rig.runner.launcher.plain and rig.names().count("cudaStreamBeginCapture") == 1


def test_an_engine_for_another_gpu_or_version_is_refused_before_it_is_loaded(rig: Loaded, tmp_path: Path) -> None:
    loads = rig.names().count("deserialize_cuda_engine")
    for what, version in (("compute_capability", "12.0"), ("tensorrt_rtx", "1.6")):
        with pytest.raises(BackendError, match=f"built for {what} {version} and here is .*compile again"):
            rig.kit.check(replace(SPEC, needs={what: version}))
    assert rig.names().count("deserialize_cuda_engine") == loads
    (tmp_path / "v.trt").write_bytes(b"rust")
    with pytest.raises(BackendError, match=r"cannot load v\.trt: .*does not match\); compile the bundle again here"):
        rig.kit.engine(rig.bundle, "v.trt")


def test_a_gpu_that_the_library_never_runs_on_is_said_and_no_compile_is_advised(rig: Loaded, tmp_path: Path) -> None:
    """The message is that of TensorRT for RTX 1.7.1 on a GPU of compute capability 9.0."""
    (tmp_path / "v.trt").write_bytes(b"rust")
    rig.library.refusal = (
        "IRuntime::deserializeCudaEngine: Error Code 6: API Usage Error (The engine cannot run on this GPU, which has "
        "compute capability 9.0. Supported compute capabilities: None. TensorRT-RTX does not support this compute "
        "capability, so the engine cannot be rebuilt for it.)"
    )
    with pytest.raises(BackendError, match=r"capability 9\.0\. .*; no compile for this GPU helps; take another"):
        rig.kit.engine(rig.bundle, "v.trt")


def test_an_engine_without_a_commit_file_cannot_move_rows(rig: Loaded) -> None:
    rig.spec = replace(SPEC, commit="")
    with pytest.raises(BackendError, match="engine verify has no file that commits its rows; compile the bundle again"):
        rig.load().commit(0, [1])


def test_tensors_that_the_manifest_does_not_name_are_refused(rig: Loaded) -> None:
    rig.library.engines[b"verify"] = {**VERIFY, "surprise": ""}, verify
    with pytest.raises(BackendError, match="'surprise' is not in the manifest; compile the bundle again"):
        rig.load()


def test_aliases_that_lie_apart_are_refused(rig: Loaded) -> None:
    rig.library.engines[b"verify"] = {**VERIFY, PRESENT: ROWS}, verify
    with pytest.raises(BackendError, match=f"'{PRESENT}' and '{ROWS}' are one buffer and lie apart"):
        rig.load()


def test_rows_are_freed_with_their_store(rig: Loaded) -> None:
    store = GpuKV(CACHE, rig.gpu)
    address = store.addresses["0.key"]
    assert address in rig.cuda.memory
    del store
    assert address not in rig.cuda.memory


def test_a_library_that_is_not_installed_is_named_with_its_extra(rig: Loaded) -> None:
    backend = tensorrt.TensorRT("tensorrt-rtx", "no_such_tensorrt")
    with pytest.raises(
        BackendError, match=f"no_such_tensorrt does not import .*pip install {re.escape(package('tensorrt-rtx'))}"
    ):
        backend.load(rig.bundle, replace(SPEC, needs={}), rig.store, Device("cuda"), SessionCache())


def verify_apart(memory: dict[str, np.ndarray]) -> None:
    """Do what `verify` does, as torch-tensorrt builds it: tensors have its own names, and the cache is only read."""
    names = {"arg_0": "input_ids", "arg_1": "past_len", "arg_3": "bias", "output0": "ids", "output1": ROWS}
    verify({names[n]: array for n, array in memory.items() if n in names} | {PRESENT: memory["arg_2"].copy()})


class TestEnginesThatOnlyRead:
    """Their tensors are told apart by order, and the commit engine writes the rows that they return."""

    TENSORS = dict.fromkeys(("arg_0", "arg_1", "arg_2", "arg_3", "output0", "output1"), "")
    SPEC = replace(
        SPEC,
        backend="torch-tensorrt",
        outputs=tuple([t for t in SPEC.outputs if not t.name.startswith("present.")]),
    )

    @pytest.fixture
    def rig(self, tmp_path: Path) -> Loaded:
        return Loaded(tmp_path, self.SPEC, True, (self.TENSORS, verify_apart))

    def test_rows_are_written_by_each_run_and_committed_after_it(self, rig: Loaded) -> None:
        rows: list[float] = []
        for step in range(4):
            tokens, slots = [10 * step + i for i in range(5)], [0, 2, 4] if step % 2 else [0, 1, 2]
            assert rig.run(tokens) == [2 * t for t in tokens]
            assert rig.keys()[len(rows) : len(rows) + 5] == [100.0 + t for t in tokens]  # a later draft reads them
            rig.cache.commit(tokens, slots)
            rows += [100.0 + tokens[i] for i in slots]
            assert rig.keys()[: len(rows)] == rows

    def test_a_step_synchronises_once(self, rig: Loaded) -> None:
        for _ in range(3):
            del rig.cuda.calls[:]
            rig.run([1, 2, 3, 4, 5])
        assert rig.names() == [*UPLOADS, "cudaGraphLaunch", "cudaMemcpyAsync", "cudaGraphLaunch", *DOWNLOAD]

    def test_an_engine_of_other_tensors_is_refused(self, tmp_path: Path) -> None:
        fewer = {name: "" for name in self.TENSORS if name != "arg_3"}
        with pytest.raises(BackendError, match="has 3 inputs and the manifest 4; compile the bundle again"):
            Loaded(tmp_path, self.SPEC, True, (fewer, verify_apart))
