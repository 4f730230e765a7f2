"""The onnx backend: which sessions it loads for which engines, on the CPU and on a device."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from doubles.onnx_runtime import PlugIn
from engine_files import build, cache_spec
from listed import bundle_of

import specc
from specc.runtime.block import Block
from specc.runtime.call import Call
from specc.runtime.device import CPU, Device
from specc.runtime.engines import Engines, ort_device, ort_providers
from specc.runtime.engines.ort import load, store
from specc.runtime.engines.ort_cpu import CopyRunner, HostKV, OrtRunner, session_options
from specc.runtime.engines.ort_device import DeviceKV, DeviceRunner
from specc.runtime.engines.session_cache import SessionCache
from specc.runtime.errors import BackendError, BundleError, SpeccWarning
from specc.runtime.sequence import Cache
from specc.runtime.tree import Tree

CHAINS = ("decode", "verify-chain-4", "verify-chain-6", "verify-chain-12")
TREE = Tree((-1, 0, 0, 1, 1, 2, 5))


@pytest.mark.model
class TestSessionsOfABundle:
    """A file is loaded once, whatever number of engines it serves."""

    @pytest.fixture
    def engines(self, bundle: Path) -> Engines:
        return specc.load(bundle).engines

    def session(self, engines: Engines, name: str) -> Any:
        runner = engines[name].runner
        assert isinstance(runner, OrtRunner)
        return runner.session

    def test_chains_of_all_widths_are_one_file_and_one_session(self, engines: Engines) -> None:
        engines.load("prefill", *CHAINS)
        assert {engines.bundle.engine(name, "onnx").file for name in CHAINS} == {"decode.onnx"}
        assert {id(self.session(engines, name)) for name in CHAINS} == {id(self.session(engines, "decode"))}
        assert self.session(engines, "prefill") is not self.session(engines, "decode")
        assert [engines[name].outputs.ids_N.shape for name in CHAINS] == [(1,), (4,), (6,), (12,)]

    def test_engines_of_one_session_do_not_write_into_each_others_outputs(self, engines: Engines) -> None:
        logits: dict[str, np.ndarray] = {}
        tokens = np.random.default_rng(0).integers(0, engines.bundle.manifest.model.vocab_size, 12).tolist()
        for name in CHAINS:
            slots = engines[name].slots
            values = (
                Call(engines[name], Cache(engines.store("target")), 0, tokens[:slots], Tree.chain(slots))
                .run()
                .logits_NV
            )
            assert values is not None
            logits[name] = values.copy()
        for name in CHAINS:
            values = engines[name].outputs.logits_NV
            assert values is not None
            np.testing.assert_array_equal(values, logits[name])
            np.testing.assert_allclose(logits[name], logits["verify-chain-12"][: len(logits[name])], atol=1e-4)

    def test_a_session_goes_with_the_last_of_its_engines(self, engines: Engines) -> None:
        engines.load(*CHAINS)
        engines.release(*CHAINS[1:])
        gc.collect()
        assert list(engines.sessions) == [("decode.onnx", 1)]
        engines.release("decode")
        gc.collect()
        assert len(engines.sessions) == 0

    def test_two_sessions_of_specc_share_nothing(self, bundle: Path) -> None:
        first, second = specc.load(bundle).engines, specc.load(bundle).engines
        assert self.session(first, "decode") is not self.session(second, "decode")

    def test_engines_of_other_threads_do_not_share_a_session(
        self, engines: Engines, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SPECC_THREADS", "2")
        engines.load("decode")
        monkeypatch.setenv("SPECC_THREADS", "1")
        engines.load("verify-chain-4")
        assert set(engines.sessions) == {("decode.onnx", 2), ("decode.onnx", 1)}


@pytest.mark.torch
def test_a_file_that_is_not_onnx_is_one_line_and_names_the_file(tmp_path: Path) -> None:
    spec = build(tmp_path, Block(Tree.chain(1)))
    (tmp_path / spec.file).write_bytes(b"not an engine")
    with pytest.raises(BundleError, match=rf"{tmp_path}/verify\.onnx: .*; compile the bundle again") as e:
        load(bundle_of(tmp_path), spec, DeviceKV(cache_spec(), "cpu"), CPU, SessionCache())
    assert "\n" not in str(e.value)


@pytest.mark.torch
def test_an_onnx_runtime_that_is_too_old_is_refused_before_the_file_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = replace(build(tmp_path, Block(Tree.chain(1))), needs={"onnxruntime": "1.20"})
    (tmp_path / spec.file).unlink()
    monkeypatch.setattr(onnxruntime, "__version__", "1.9.0")
    with pytest.raises(BackendError) as e:
        load(bundle_of(tmp_path), spec, HostKV(cache_spec()), CPU, SessionCache())
    assert str(e.value) == (
        "engine verify needs ONNX Runtime 1.20 or newer, and here is 1.9.0; pip install -U onnxruntime"
    )


@pytest.mark.torch
def test_a_file_that_onnx_runtime_refuses_is_one_line_and_names_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = build(tmp_path, Block(Tree.chain(1)))
    model = onnx.load(tmp_path / spec.file, load_external_data=False)
    model.graph.node[0].op_type = "NoSuchOperator"
    onnx.save(model, tmp_path / spec.file)
    monkeypatch.setattr("specc.runtime.engines.ort.free", lambda device: ", 3 of 8 MiB being free")
    with pytest.raises(BackendError, match=rf"ONNX Runtime .* cannot load {tmp_path}/verify\.onnx, 3 of 8") as e:
        load(bundle_of(tmp_path), spec, DeviceKV(cache_spec(), "cpu"), CPU, SessionCache())
    assert "\n" not in str(e.value)


@pytest.mark.torch
@pytest.mark.parametrize(
    ("reason", "line"),
    [
        (
            "Failed to allocate memory for requested buffer\nat bfc_arena.cc",
            r"cuda has no room for a cache of 0 MiB \(Failed to allocate .*buffer\); ",
        ),
        (
            "CUDA Provider not available, can't get interface for it\nat provider_bridge_ort.cc",
            r"^CUDAExecutionProvider does not load: CUDA .*; install NVIDIA's driver, ",
        ),
    ],
    ids=["no room", "no provider"],
)
def test_a_cache_that_a_device_refuses_is_an_error_with_its_size_or_with_the_driver_to_install(
    reason: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RuntimeError(reason)

    monkeypatch.setattr("specc.runtime.engines.ort.require", lambda device: device.runs)
    monkeypatch.setattr(ort_device, "zeros", refuse)
    monkeypatch.setattr("specc.runtime.engines.ort.free", lambda device: "")
    with pytest.raises(BackendError, match=line):
        store(cache_spec(), Device("cuda"))


@pytest.mark.torch
def test_an_engine_on_cuda_captures_its_launches_unless_its_provider_refuses_or_they_are_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, rows = build(tmp_path, Block(Tree.chain(1))), DeviceKV(cache_spec(), "cpu")
    requests: list[object] = []
    real, refuses = onnxruntime.InferenceSession, False

    def make(path: str, options: Any, providers: list[Any]) -> Any:
        (provider, settings), cpu = providers
        assert (provider, cpu) == ("CUDAExecutionProvider", "CPUExecutionProvider")
        requests.append(settings)
        if refuses and "enable_cuda_graph" in settings:
            raise RuntimeError("This session cannot use the graph capture feature\nat inference_session.cc")
        session = real(path, options, providers=[cpu])
        monkeypatch.setattr(session, "get_providers", lambda: [provider, cpu])
        return session

    def plain() -> object:
        runner = load(bundle_of(tmp_path), spec, rows, Device("cuda"), SessionCache())
        assert isinstance(runner, DeviceRunner)
        return runner.plain

    monkeypatch.setattr(ort_providers, "InferenceSession", make)
    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    assert plain() is not None and requests == [{"use_tf32": "0", "enable_cuda_graph": "1"}]
    refuses = True
    with pytest.warns(SpeccWarning, match=r"verify: its launches .* \(This session cannot use the graph capture f"):
        assert plain() is None
    assert requests[1:] == [{"use_tf32": "0", "enable_cuda_graph": "1"}, {"use_tf32": "0"}]
    monkeypatch.setenv("SPECC_CUDA_GRAPHS", "off")
    assert plain() is None and requests[3:] == [{"use_tf32": "0"}]


@pytest.mark.torch
def test_a_plug_in_for_a_gpu_captures_its_launches_and_commits_without_a_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, rows = build(tmp_path, Block(TREE)), DeviceKV(cache_spec(), "cpu")
    real, options, device = onnxruntime.InferenceSession, session_options(), Device("cuda", "nv-tensorrt-rtx")
    plugin = PlugIn(monkeypatch, device, "CPU GPU")

    class Session(real):  # type: ignore[misc,valid-type]  # ONNX Runtime has no types.
        def get_provider_graph_assignment_info(self) -> list[Any]:
            return plugin.assignment()

    def make(path: str, argument: object) -> Any:
        assert argument is plugin.options
        return Session(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(ort_providers, "InferenceSession", make)
    runner = load(bundle_of(tmp_path), spec, rows, device, SessionCache())
    assert isinstance(runner, DeviceRunner) and runner.plain is not None and runner.committer is not None
    assert plugin.registered == [("NvTensorRTRTXExecutionProvider", "plug-in.so")]
    gpu = plugin.devices[1:]
    assert plugin.sessions == [(gpu, {}), (gpu, {"enable_cuda_graph": "1"})]


@pytest.mark.torch
def test_a_plug_in_on_the_cpu_runs_over_the_hosts_rows_and_copies_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec, session = build(tmp_path, Block(Tree.chain(1))), object()
    monkeypatch.setattr("specc.runtime.engines.ort.provider_session", lambda file, device: session)
    runner = load(bundle_of(tmp_path), spec, HostKV(cache_spec()), Device(provider="openvino"), SessionCache())
    assert isinstance(runner, CopyRunner) and runner.session is session
