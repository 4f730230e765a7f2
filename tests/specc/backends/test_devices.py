"""Caches and commits on a device, by the graph that a GPU runs, the device being the CPU."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime as ort
import pytest
from graphs import prepared

from specc import passes
from specc.backends import Built, Options, onnx
from specc.compiler import Options as CompileOptions
from specc.compiler import compile_bundle, weights
from specc.exactness.replay import prove
from specc.runtime.block import Block, Parents
from specc.runtime.device import Device
from specc.runtime.engine import Engine
from specc.runtime.engines import ort as engines
from specc.runtime.engines.ort import HostKV, OrtRunner, lacks, load, session_options, store
from specc.runtime.engines.ort_device import GRAPHS, TYPES, DeviceKV, DeviceRunner, captures, zeros
from specc.runtime.errors import BackendError, SpeccWarning
from specc.runtime.manifest import CacheSpec, EngineSpec
from specc.runtime.sequence import Cache
from specc.runtime.tree import Tree

pytestmark = pytest.mark.torch

TREE = Tree((-1, 0, 0, 1, 1, 2, 5))
PATH = [0, 2, 5, 6]
CAPACITY = 64


def build(directory: Path, block: Block, options: Options = Options("portable")) -> tuple[EngineSpec, Built]:  # noqa: B008
    graph, file = prepared("llama"), directory / f"weights-{block.weights}.safetensors"
    tensors = weights.collect(graph)
    weights.write_types(tensors, directory, [block.weights])
    file = file if file.exists() else directory / "weights.safetensors"
    passes.run(passes.pipeline(block, CAPACITY), graph)
    made = onnx.build(graph, block, file, "", directory / "verify.onnx", options)
    return EngineSpec(
        "verify", "onnx", "verify.onnx", block, (), made.inputs, made.outputs, (), "", {}, made.commit
    ), made


def session(file: Path) -> ort.InferenceSession:
    return ort.InferenceSession(str(file), session_options(), providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("block", [Block(TREE), Block(Parents(9))], ids=["baked", "parents"])
def test_rows_kept_by_the_graph_are_those_that_the_host_keeps(block: Block, tmp_path: Path) -> None:
    spec, made = build(tmp_path, block)
    caches = CacheSpec(CAPACITY, {str(i): (2, 16) for i in range(3)})
    host, device = HostKV(caches), DeviceKV(caches, "cpu")
    verify, commit = session(tmp_path / spec.file), session(tmp_path / made.commit)
    engines = (
        Engine("host", block, OrtRunner(verify, spec, host), host),
        Engine("device", block, DeviceRunner(verify, spec, device, commit), device),
    )
    states = [Cache(e.store) for e in engines]
    for step in range(5):
        tokens = [(7 * step + i) % 120 for i in range(TREE.slots)]
        found = [e.run(c, tokens, TREE).logits_NV[: TREE.slots].copy() for e, c in zip(engines, states, strict=True)]
        np.testing.assert_array_equal(*found)
        for engine, cache in zip(engines, states, strict=True):
            engine.commit(cache, PATH)
    rows = len(states[0])
    assert rows == 5 * len(PATH) == len(states[1])
    for name, value in host.values.items():
        kept = value.numpy()[:, :, :rows]
        assert np.abs(kept).min(-1).max() > 0
        np.testing.assert_array_equal(kept, device.values[name].numpy()[:, :, :rows])


def test_chains_need_no_graph_to_keep_rows(tmp_path: Path) -> None:
    spec, made = build(tmp_path, Block(Tree.chain(4)))
    assert made.commit == ""
    rows = DeviceKV(CacheSpec(CAPACITY, {str(i): (2, 16) for i in range(3)}), "cpu")
    runner = DeviceRunner(session(tmp_path / spec.file), spec, rows)
    with pytest.raises(BackendError, match="engine verify has no file that keeps its rows"):
        runner.commit(0, [1])


class Recorded:
    """A session that notes which graph each run asks for. `fails`: a capture does."""

    def __init__(self, session: ort.InferenceSession, fails: bool = False) -> None:
        self.session, self.fails, self.asked = session, fails, []

    def io_binding(self) -> ort.IOBinding:
        return self.session.io_binding()

    def run_with_iobinding(self, binding: ort.IOBinding, options: ort.RunOptions) -> None:
        (asked,) = {options.get_run_config_entry(key) for key in GRAPHS.values()}
        self.asked.append(asked)
        if self.fails and self.asked[-1] != "-1":
            raise RuntimeError("operation not permitted when stream is capturing\nat cuda_graph.cc")
        self.session.run_with_iobinding(binding, options)


def captured(directory: Path, spec: EngineSpec, fails: bool = False) -> tuple[Engine, Recorded, list[Recorded]]:
    rows, again = DeviceKV(CacheSpec(CAPACITY, {str(i): (2, 16) for i in range(3)}), "cpu"), []

    def plain() -> Recorded:
        again.append(Recorded(session(directory / spec.file)))
        return again[0]

    recorded = Recorded(session(directory / spec.file), fails)
    runner = DeviceRunner(recorded, spec, rows, session(directory / spec.commit), plain)
    return Engine("verify", spec.block, runner, rows), recorded, again


def test_launches_are_captured_after_a_first_run_under_a_number_of_the_engine(tmp_path: Path) -> None:
    spec, _ = build(tmp_path, Block(TREE))
    numbers = []
    for _ in range(2):
        engine, recorded, again = captured(tmp_path, spec)
        cache = Cache(engine.store)
        for _ in range(3):
            engine.run(cache, [3, 1, 4, 1, 5, 9, 2], TREE)
            engine.commit(cache, PATH)
        dry, *rest = recorded.asked
        assert dry == "-1" and len(rest) == 2 and len(set(rest)) == 1 and int(rest[0]) > 0 and not again
        numbers += rest
    assert len(set(numbers)) == 2


def test_what_cannot_be_captured_runs_without_and_one_line_says_so(tmp_path: Path) -> None:
    spec, _ = build(tmp_path, Block(TREE))
    engine, recorded, again = captured(tmp_path, spec, fails=True)
    twin, *_ = captured(tmp_path, spec)
    caches = Cache(engine.store), Cache(twin.store)
    with pytest.warns(SpeccWarning) as told:
        for step in range(4):
            tokens = [(5 * step + i) % 120 for i in range(TREE.slots)]
            found = [e.run(c, tokens, TREE).logits_NV.copy() for e, c in zip((engine, twin), caches, strict=True)]
            np.testing.assert_array_equal(*found)
            for e, c in zip((engine, twin), caches, strict=True):
                e.commit(c, PATH)
    assert recorded.asked == ["-1", recorded.asked[1]] and [a.asked for a in again] == [["-1"] * 3]
    (line,) = [str(w.message) for w in told]
    why = "operation not permitted when stream is capturing"
    assert line == f"engine verify: its launches cannot be captured ({why}); it runs without"


def test_rows_that_are_moved_are_waited_for_before_the_next_step(tmp_path: Path) -> None:
    spec, _ = build(tmp_path, Block(TREE))
    engine, *_ = captured(tmp_path, spec)
    cache, waited = Cache(engine.store), []
    engine.run(cache, [3, 1, 4, 1, 5, 9, 2], TREE)
    assert engine.store.moving is None
    engine.commit(cache, PATH)
    engine.store.moving = SimpleNamespace(synchronize_outputs=lambda: waited.append(len(cache)))
    engine.run(cache, [3, 1, 4, 1, 5, 9, 2], TREE)
    assert waited == [len(PATH)] and engine.store.moving is None


def test_what_a_session_on_cuda_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The provider's option; none where nodes stay on the CPU, or where it is switched off."""
    spec, _ = build(tmp_path, Block(Tree.chain(1)))
    rows, asked = DeviceKV(CacheSpec(CAPACITY, {str(i): (2, 16) for i in range(3)}), "cpu"), []
    real, bundle, refuse = engines.InferenceSession, SimpleNamespace(file=lambda name: tmp_path / name), False

    def make(path: str, options: ort.SessionOptions, providers: list[object]) -> ort.InferenceSession:
        (provider, entries), cpu = providers
        assert (provider, cpu) == ("CUDAExecutionProvider", "CPUExecutionProvider")
        asked.append(entries)
        if refuse and entries:
            raise RuntimeError("This session cannot use the graph capture feature\nat inference_session.cc")
        return real(path, options, providers=[cpu])

    monkeypatch.setattr(engines, "InferenceSession", make)
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    assert load(bundle, spec, rows, Device("cuda")).plain is not None and asked == [{"enable_cuda_graph": "1"}]
    refuse = True
    with pytest.warns(SpeccWarning, match=r"verify: its launches .* \(This session cannot use the graph capture f"):
        assert load(bundle, spec, rows, Device("cuda")).plain is None
    assert asked[1:] == [{"enable_cuda_graph": "1"}, {}]
    monkeypatch.setenv("SPECC_CUDA_GRAPHS", "off")
    assert load(bundle, spec, rows, Device("cuda")).plain is None and asked[3:] == [{}]
    assert not captures("TensorrtExecutionProvider")


class PlugIn:
    """A provider's package, and ONNX Runtime's devices, which it adds to once it is registered."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, place: Device, kinds: str) -> None:
        self.title, self.registered, self.sessions = place.runs.title, [], []
        self.devices = [
            SimpleNamespace(ep_name=self.title, device=SimpleNamespace(type=getattr(ort.OrtHardwareDeviceType, kind)))
            for kind in kinds.split()
        ]
        self.options = SimpleNamespace(
            add_provider_for_devices=lambda devices, given: self.sessions.append((devices, given)),
            add_session_config_entry=lambda key, value: None,
        )
        package = SimpleNamespace(get_library_path=lambda: "plug-in.so")
        for module, name, value in (
            (engines.importlib.util, "find_spec", lambda name: name == place.runs.plugin),
            (engines.importlib, "import_module", {place.runs.plugin: package}.__getitem__),
            (ort, "register_execution_provider_library", self.register),
            (ort, "get_ep_devices", lambda: self.devices if self.registered else []),
            (engines, "session_options", lambda: self.options),
        ):
            monkeypatch.setattr(module, name, value)

    def register(self, title: str, library: str) -> None:
        self.registered.append((title, library))


def test_a_plug_in_for_a_gpu_is_registered_once_and_captures_its_launches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, _ = build(tmp_path, Block(TREE))
    rows = DeviceKV(CacheSpec(CAPACITY, {str(i): (2, 16) for i in range(3)}), "cpu")
    real, options, place = ort.InferenceSession, session_options(), Device("cuda", "nv-tensorrt-rtx")
    plugin = PlugIn(monkeypatch, place, "CPU GPU")

    def make(path: str, given: object) -> ort.InferenceSession:
        assert given is plugin.options
        made = real(path, options, providers=["CPUExecutionProvider"])
        made.get_provider_graph_assignment_info = lambda: [SimpleNamespace(ep_name=plugin.title)]
        return made

    monkeypatch.setattr(engines, "InferenceSession", make)
    runner = load(SimpleNamespace(file=lambda name: tmp_path / name), spec, rows, place)
    assert runner.plain is not None and runner.committer is not None
    assert plugin.registered == [("NvTensorRTRTXExecutionProvider", "plug-in.so")]
    gpu = plugin.devices[1:]
    assert plugin.sessions == [(gpu, {}), (gpu, {"enable_cuda_graph": "1"})]  # rows are kept without a graph


def test_a_plug_in_that_cannot_run_here_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    place = Device("cuda", "nv-tensorrt-rtx")
    plugin = PlugIn(monkeypatch, place, "CPU")
    assert lacks(place.runs) == f"{plugin.title} finds no device that it runs on; take another provider"

    def refuse(title: str, library: str) -> None:
        raise RuntimeError("Failed to load library plug-in.so: libcuda.so.1: cannot open it\nat environment.cc")

    plugin.devices.clear()
    monkeypatch.setattr(ort, "register_execution_provider_library", refuse)
    with pytest.raises(
        BackendError, match=r"does not load: Failed .*libcuda.so.1.* it; install its device's driver, or"
    ):
        store(CacheSpec(CAPACITY, {"0": (2, 16)}), place)


@pytest.mark.parametrize("runs", ["OpenVINOExecutionProvider", "CPUExecutionProvider"])
def test_a_plug_in_is_asked_by_its_device_and_must_run_something(
    runs: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its name ONNX Runtime would leave everything to the CPU, and say nothing; so with options it does not know."""
    spec, _ = build(tmp_path, Block(Tree.chain(1)))
    rows = HostKV(CacheSpec(CAPACITY, {str(i): (2, 16) for i in range(3)}))
    made = SimpleNamespace(get_provider_graph_assignment_info=lambda: [SimpleNamespace(ep_name=runs)])
    bundle, place = SimpleNamespace(file=lambda name: tmp_path / name), Device(provider="openvino")
    plugin = PlugIn(monkeypatch, place, "GPU CPU")
    monkeypatch.setattr(engines, "InferenceSession", lambda path, given: made)
    monkeypatch.setenv("SPECC_OPENVINO_PRECISION", "bf16")
    if runs == "CPUExecutionProvider":
        with pytest.raises(BackendError, match=r"OpenVINOExecutionProvider runs no node of .*take another provider$"):
            load(bundle, spec, rows, place)
    else:
        load(bundle, spec, rows, place)
    hints = '{"CPU": {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": "1"}}'
    assert plugin.sessions == [(plugin.devices[1:], {"load_config": hints})]
    monkeypatch.setenv("SPECC_OPENVINO_PRECISION", "int8")
    with pytest.raises(BackendError, match="SPECC_OPENVINO_PRECISION is 'int8'; give f32 or bf16"):
        load(bundle, spec, rows, place)


@pytest.mark.parametrize("dtype", TYPES)
def test_buffers_of_every_type_are_zero_and_take_a_hosts_bytes(dtype: str) -> None:
    value, (number, carrier) = zeros(dtype, (2, 3), "cpu"), TYPES[dtype]
    assert value.element_type() == number and value.shape() == [2, 3]
    assert value.tensor_size_in_bytes() == 6 * np.dtype(carrier).itemsize


@pytest.mark.parametrize("kind", ["fp16"])
def test_half_precision_stays_on_the_device(kind: str, tmp_path: Path) -> None:
    """The cache and its commits in the engine's own type."""
    spec, made = build(tmp_path, Block(TREE, weights=kind))
    dtype = next(t.dtype for t in spec.inputs if t.name.endswith(".key"))
    caches = CacheSpec(CAPACITY, {str(i): (2, 16) for i in range(3)}, dtype)
    host, device = HostKV(caches), DeviceKV(caches, "cpu")
    verify = session(tmp_path / spec.file)
    engines = (
        Engine("host", spec.block, OrtRunner(verify, spec, host), host),
        Engine("device", spec.block, DeviceRunner(verify, spec, device, session(tmp_path / made.commit)), device),
    )
    states = [Cache(e.store) for e in engines]
    for step in range(3):
        tokens = [(7 * step + i) % 120 for i in range(TREE.slots)]
        found = [e.run(c, tokens, TREE).logits_NV.copy() for e, c in zip(engines, states, strict=True)]
        np.testing.assert_array_equal(*found)
        for engine, cache in zip(engines, states, strict=True):
            engine.commit(cache, PATH)


def test_half_precision_says_what_full_precision_says(tmp_path: Path) -> None:
    """fp16 on the CPU provider, which computes most of it in fp32; logits of a scale near 1."""
    said = []
    for kind in ("fp32", "fp16"):
        directory = tmp_path / kind
        directory.mkdir()
        spec, _ = build(directory, Block(TREE, weights=kind))
        dtype = next(t.dtype for t in spec.inputs if t.name.endswith(".key"))
        rows = HostKV(CacheSpec(CAPACITY, {str(i): (2, 16) for i in range(3)}, dtype))
        engine = Engine("verify", spec.block, OrtRunner(session(directory / spec.file), spec, rows), rows)
        said.append(engine.run(Cache(rows), [3, 1, 4, 1, 5, 9, 2], TREE).logits_NV.copy())
    assert 0 < np.abs(said[0] - said[1]).max() < 0.03
    assert said[1].dtype == np.float32


def test_a_provider_that_is_not_here_is_named_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, _ = build(tmp_path, Block(Tree.chain(1)))
    rows = HostKV(CacheSpec(CAPACITY, {str(i): (2, 16) for i in range(3)}))
    bundle = SimpleNamespace(file=lambda name: tmp_path / name)
    monkeypatch.setattr(engines.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"no OpenVINOExecutionProvider, only .*install specc\[openvino\]"):
        load(bundle, spec, rows, Device(provider="openvino"))


def test_what_does_not_go_together_is_refused() -> None:
    for place, told in (
        ({"device": "tpu"}, "unknown device 'tpu'; there are cpu and cuda"),
        ({"provider": "coreml"}, "unknown execution provider 'coreml'; there are cpu, cuda, tensorrt, nv-tensorrt-rtx"),
        ({"provider": "cuda"}, "runs on a GPU; add --device cuda"),
        ({"provider": "openvino", "device": "cuda"}, "runs on the CPU"),
        ({"provider": "openvino", "backend": "inductor"}, "is of backend onnx, not inductor"),
    ):
        with pytest.raises(BackendError, match=told):
            Device(**place)


def test_a_fast_lowering_in_half_precision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="the fast lowering has no bf16; take --lowering portable"):
        build(tmp_path, Block(Tree.chain(1), weights="bf16"), Options("fast"))
    with pytest.raises(BackendError, match="the portable lowering has no int4 weights"):
        build(tmp_path, Block(Tree.chain(1), weights="int4"))


@pytest.mark.model
def test_the_portable_lowering_replays_the_golden_outputs(model: Path, tmp_path: Path) -> None:
    """The whole way, through a compile; rows are kept by the host, so the commit files are there and unused."""
    prompts, output = tmp_path / "prompts.jsonl", tmp_path / "portable.specc"
    prompts.write_text('{"prompt": "def wrap(text, width=70):"}\n{"prompt": "import os"}\n', encoding="utf-8")
    recipes = ("token-recycling", "dynamic-tree")
    portable = Options("portable")
    compile_bundle(CompileOptions(str(model), output, recipes, prompts=prompts, golden_tokens=16, build=portable))
    assert sorted(f.name for f in output.glob("*.commit.onnx"))
    assert [r.verdict for r in prove(output).replayed] == ["identical"] * 6
