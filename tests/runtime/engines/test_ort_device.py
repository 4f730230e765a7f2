"""Caches and commits on a device, by the graphs that a GPU runs. The device is the CPU here."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from doubles.onnx_runtime import RecordedSession
from engine_files import build, cache_spec, cpu_session

from specc.runtime.block import Block, Parents
from specc.runtime.call import Call
from specc.runtime.engine import Engine
from specc.runtime.engines import ort_device
from specc.runtime.engines.ort_cpu import HostKV, OrtRunner
from specc.runtime.engines.ort_device import TYPES, DeviceKV, DeviceRunner, captures, free, zeros
from specc.runtime.errors import BackendError, SpeccWarning
from specc.runtime.manifest import EngineSpec
from specc.runtime.sequence import Cache
from specc.runtime.tree import Tree

pytestmark = pytest.mark.torch

TREE = Tree((-1, 0, 0, 1, 1, 2, 5))
PATH = [0, 2, 5, 6]
TOKENS = [3, 1, 4, 1, 5, 9, 2]


class Pair:
    """An engine twice: its rows in host memory, and its rows on a device."""

    def __init__(self, directory: Path, spec: EngineSpec) -> None:
        self.host, self.device = HostKV(cache_spec(spec)), DeviceKV(cache_spec(spec), "cpu")
        verify, commit = cpu_session(directory / spec.file), cpu_session(directory / spec.commit)
        self.engines = (
            Engine("host", spec.block, OrtRunner(verify, spec, self.host), self.host),
            Engine("device", spec.block, DeviceRunner(verify, spec, self.device, commit), self.device),
        )
        self.caches = [Cache(e.store) for e in self.engines]

    def step(self, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Run tokens that depend on the number of the step, commit PATH, and return both engines' logits."""
        tokens = [(7 * number + i) % 120 for i in range(TREE.slots)]
        logits = []
        for engine, cache in zip(self.engines, self.caches, strict=True):
            values = Call(engine, cache, 0, tokens, TREE).run().logits_NV
            assert values is not None
            logits.append(values[: TREE.slots].copy())
            cache.commit(tokens, PATH)
        return logits[0], logits[1]


@pytest.mark.parametrize(
    "block", [Block(TREE), Block(Parents(9)), Block(TREE, weights="fp16")], ids=["baked", "parents", "fp16"]
)
def test_rows_committed_by_the_graph_are_those_that_the_host_commits(block: Block, tmp_path: Path) -> None:
    pair = Pair(tmp_path, build(tmp_path, block))
    for number in range(5):
        np.testing.assert_array_equal(*pair.step(number))
    rows = len(pair.caches[0])
    assert rows == 5 * len(PATH) == len(pair.caches[1])
    for name, value in pair.host.values.items():
        committed = value.numpy()[:, :, :rows]
        assert np.abs(committed).min(-1).max() > 0
        np.testing.assert_array_equal(committed, pair.device.values[name].numpy()[:, :, :rows])


def test_a_chain_needs_no_graph_to_commit_rows_and_has_none(tmp_path: Path) -> None:
    spec = build(tmp_path, Block(Tree.chain(4)))
    assert spec.commit == ""
    runner = DeviceRunner(cpu_session(tmp_path / spec.file), spec, DeviceKV(cache_spec(), "cpu"))
    with pytest.raises(BackendError, match="engine verify has no file that commits its rows; compile with --lowering"):
        runner.commit(0, [1])


class Captured:
    """An engine whose launches are captured.

    Attributes:
        session: notes under which number each run is captured.
        plain: the sessions that were loaded to run without a graph.
    """

    def __init__(self, directory: Path, spec: EngineSpec, fails: bool = False) -> None:
        self.store = DeviceKV(cache_spec(), "cpu")
        self.session = RecordedSession(cpu_session(directory / spec.file), fails)
        self.plain: list[RecordedSession] = []

        def load_plain() -> RecordedSession:
            self.plain.append(RecordedSession(cpu_session(directory / spec.file)))
            return self.plain[-1]

        commit = cpu_session(directory / spec.commit)
        runner = DeviceRunner(self.session, spec, self.store, commit, load_plain)
        self.engine = Engine("verify", spec.block, runner, self.store)
        self.cache = Cache(self.store)

    def step(self, tokens: list[int]) -> np.ndarray:
        logits = Call(self.engine, self.cache, 0, tokens, TREE).run().logits_NV
        assert logits is not None
        copy = logits.copy()
        self.cache.commit(tokens, PATH)
        return copy


def test_launches_are_captured_after_a_first_run_under_a_number_of_the_engine(tmp_path: Path) -> None:
    spec = build(tmp_path, Block(TREE))
    numbers = []
    for _ in range(2):
        captured = Captured(tmp_path, spec)
        for _ in range(3):
            captured.step(TOKENS)
        dry, *rest = captured.session.graphs
        assert dry == "-1" and len(rest) == 2 and len(set(rest)) == 1 and int(rest[0]) > 0 and not captured.plain
        numbers += rest
    assert len(set(numbers)) == 2


def test_launches_that_cannot_be_captured_run_plainly_and_one_line_says_so(tmp_path: Path) -> None:
    spec = build(tmp_path, Block(TREE))
    failing, twin = Captured(tmp_path, spec, fails=True), Captured(tmp_path, spec)
    with pytest.warns(SpeccWarning) as warned:
        for number in range(4):
            tokens = [(5 * number + i) % 120 for i in range(TREE.slots)]
            np.testing.assert_array_equal(failing.step(tokens), twin.step(tokens))
    assert failing.session.graphs == ["-1", failing.session.graphs[1]]
    assert [session.graphs for session in failing.plain] == [["-1"] * 3]
    (line,) = [str(w.message) for w in warned]
    reason = "operation not permitted when stream is capturing"
    assert line == f"engine verify: its launches cannot be captured ({reason}); it runs without a captured graph"


def test_a_commit_is_waited_for_before_the_next_step(tmp_path: Path) -> None:
    captured = Captured(tmp_path, build(tmp_path, Block(TREE)))
    waits: list[int] = []
    Call(captured.engine, captured.cache, 0, TOKENS, TREE).run()
    assert captured.store.moving is None
    captured.cache.commit(TOKENS, PATH)
    assert captured.store.moving is not None
    captured.store.moving = SimpleNamespace(synchronize_outputs=lambda: waits.append(len(captured.cache)))
    Call(captured.engine, captured.cache, 0, TOKENS, TREE).run()
    assert waits == [len(PATH)] and captured.store.moving is None


def test_a_run_that_fails_names_the_engine_and_a_remedy(tmp_path: Path) -> None:
    spec = build(tmp_path, Block(Tree.chain(1)))
    runner = DeviceRunner(cpu_session(tmp_path / spec.file), spec, DeviceKV(cache_spec(), "cpu"))
    runner.inputs["past_len"][0] = 1 << 20
    with pytest.raises(BackendError, match=r"could not run engine verify: .*; take another --execution-provider, or"):
        runner.run()


@pytest.mark.parametrize("dtype", TYPES)
def test_buffers_of_every_type_are_zero_and_take_the_hosts_bytes(dtype: str) -> None:
    value, (number, carrier) = zeros(dtype, (2, 3), "cpu"), TYPES[dtype]
    assert value.element_type() == number and value.shape() == [2, 3]
    assert value.tensor_size_in_bytes() == 6 * np.dtype(carrier).itemsize


def test_captures_are_for_providers_that_know_them_and_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    assert captures("CUDAExecutionProvider") and captures("NvTensorRTRTXExecutionProvider")
    assert not captures("TensorrtExecutionProvider") and not captures("CPUExecutionProvider")
    monkeypatch.setenv("SPECC_CUDA_GRAPHS", "off")
    assert not captures("CUDAExecutionProvider")


@pytest.mark.parametrize(
    ("answer", "phrase"), [((0, 3 << 20, 8 << 30), ", 3 of 8192 MiB being free"), ((2, 0, 0), "")], ids=["ok", "error"]
)
def test_free_memory_is_said_if_cuda_says_it(
    answer: tuple[int, int, int], phrase: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ort_device, "bindings", lambda: SimpleNamespace(cudaMemGetInfo=lambda: answer))
    assert free("cuda") == phrase and free("cpu") == ""
