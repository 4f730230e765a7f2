"""Packages of AOTInductor compute what ONNX engines of the same graph compute, and leave equal rows."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from doubles.torch_gpu import TorchOnGpu
from graphs import prepared
from onnxruntime import InferenceSession

import specc
from specc import passes
from specc.backends import Backend, Options, inductor, onnx
from specc.backends.export import traced
from specc.backends.lowering import torch_aten
from specc.backends.lowering.half_precision import Half
from specc.compiler import Options as CompileOptions
from specc.compiler import compile_bundle, weights
from specc.exactness import golden
from specc.exactness.replay import prove
from specc.runtime.block import Block, Parents
from specc.runtime.bundle import Bundle, open_bundle
from specc.runtime.call import Call
from specc.runtime.device import CPU, Device
from specc.runtime.engine import Engine
from specc.runtime.engines import inductor as runner
from specc.runtime.engines.mapped_weights import tensors
from specc.runtime.engines.ort_cpu import HostKV, OrtRunner, session_options
from specc.runtime.engines.session_cache import SessionCache
from specc.runtime.errors import BackendError
from specc.runtime.manifest import CacheSpec, EngineSpec
from specc.runtime.sequence import Cache
from specc.runtime.tree import Tree

pytestmark = [pytest.mark.torch, pytest.mark.model]

TREE = Tree((-1, 0, 0, 1, 1, 2, 5))
PATH = [0, 2, 5]
CAPACITY = 64
BLOCKS = {"llama": Block(Parents(9)), "gemma2": Block(TREE), "cohere2": Block(TREE, ("top_k:4", "logits"))}


@pytest.fixture(autouse=True)
def compiler() -> None:
    """Skip where there is no C++ compiler."""
    if missing := inductor.CPU.requirements():
        pytest.skip(missing[0])


class Pair:
    """A block as an engine of ONNX Runtime on the host and as a package of AOTInductor on the CPU."""

    def __init__(self, family: str, directory: Path) -> None:
        self.directory, self.block = directory, BLOCKS[family]
        self.graph, weights_file = prepared(family), directory / "weights.safetensors"
        weights.write(weights.collect(self.graph), weights_file)
        manifest = SimpleNamespace(weights=weights_file.name)
        self.bundle = cast(Bundle, SimpleNamespace(file=directory.joinpath, manifest=manifest, allow_native_code=True))
        self.onnx_spec, self.spec = self._built("onnx", onnx.ONNX), self._built("inductor", inductor.CPU)
        keys = [tensor for tensor in self.spec.inputs if tensor.name.endswith(".key")]
        self.caches = CacheSpec(CAPACITY, {t.name.split(".")[1]: (t.shape[1], t.shape[3]) for t in keys}, keys[0].dtype)
        session = InferenceSession(directory / self.onnx_spec.file, session_options())
        self.host = HostKV(self.caches)
        self.expected = Engine("verify", self.block, OrtRunner(session, self.onnx_spec, self.host), self.host)
        self.store = runner.store(self.caches, CPU)
        package = runner.load(self.bundle, self.spec, self.store, CPU, SessionCache())
        self.engine = Engine("verify", self.block, package, self.store)

    def _built(self, name: str, backend: Backend) -> EngineSpec:
        """Build the block by a backend."""
        graph, file = passes.fork(self.graph), self.directory / f"verify{backend.suffix}"
        passes.run(passes.pipeline(self.block, CAPACITY), graph)
        result = backend.build(graph, self.block, self.directory / "weights.safetensors", "", file)
        return EngineSpec(
            name="verify",
            backend=name,
            file=file.name,
            block=self.block,
            layers=(),
            inputs=result.inputs,
            outputs=result.outputs,
            passes=(),
            needs=result.needs,
        )


def step(pairs: Sequence[tuple[Engine, Cache]], number: int) -> list[np.ndarray]:
    """Run a tree on each engine and commit a path; return the logits of each."""
    tokens = [(11 * number + 3 * i) % 120 for i in range(TREE.slots)]
    logits = []
    for engine, cache in pairs:
        values = Call(engine, cache, 0, tokens, TREE).run().logits_NV
        assert values is not None
        logits.append(values[: TREE.slots].copy())
    for _, cache in pairs:
        cache.commit(tokens, PATH)
    return logits


@pytest.mark.parametrize("family", ["llama", *(pytest.param(f, marks=pytest.mark.slow) for f in ("gemma2", "cohere2"))])
def test_a_package_computes_what_an_onnx_engine_computes(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPECC_CACHE", "off")
    pair = Pair(family, tmp_path)
    state, expected_state = Cache(pair.store, [1, 2, 3]), Cache(pair.host, [1, 2, 3])  # no tree runs on no rows
    for number in range(6):
        logits, expected = step([(pair.engine, state), (pair.expected, expected_state)], number)
        np.testing.assert_allclose(logits, expected, atol=1e-4, rtol=1e-4)
    rows = len(state)
    for name, value in pair.host.values.items():
        package_rows = pair.store.values[name].numpy()[:, :, :rows]
        np.testing.assert_allclose(value.numpy()[:, :, :rows], package_rows, atol=1e-5)
    assert (tmp_path / "verify.pt2").stat().st_size < 4 << 20
    if family == "llama":
        refuses_another_torch(pair)
    computes_the_same_on_a_gpu(pair, state)


def test_the_first_rows_of_a_store_are_copied_if_its_shapes_are_the_same() -> None:
    store, source = (runner.TorchKV(CacheSpec(8, {"0": (2, 4), "3": (1, 4)}), torch, "cpu") for _ in range(2))
    for value in source.values.values():
        value[:] = torch.arange(1, 9)[:, None]
    for other in (runner.TorchKV(CacheSpec(9, {"0": (2, 4)}), torch, "cpu"), HostKV(store.spec)):
        assert store.copy(other, 5) == 0 and not any(value.any() for value in store.values.values())
    assert store.copy(source, 5) == 5
    for value in store.values.values():
        assert value[0, 0, :, 0].tolist() == [1, 2, 3, 4, 5, 0, 0, 0]


def test_threads_that_load_engines_at_once_share_one_copy_of_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, reads = tmp_path / "weights.safetensors", []
    weights.write({"bias": torch.ones(3)}, file)
    begin = threading.Barrier(4)

    def slow(path: Path) -> object:
        reads.append(path)
        time.sleep(0.02)  # Another thread comes in here, if it may.
        return tensors(path)

    monkeypatch.setattr(runner, "tensors", slow)
    store = runner.TorchKV(CacheSpec(8, {"0": (1, 4)}), torch, "cpu")

    def load(_: int) -> dict[str, torch.Tensor]:
        begin.wait()
        return store.weights(file)

    with ThreadPoolExecutor(4) as pool:
        copies = list(pool.map(load, range(4)))
    assert reads == [file] and all(copy is copies[0] for copy in copies)


def computes_the_same_on_a_gpu(pair: Pair, state: Cache) -> None:
    """Run what a GPU's engine does, with the CPU as the GPU: equal outputs and rows, and one wait a step."""
    torch_on_gpu = TorchOnGpu()
    store = runner.TorchKV(pair.caches, torch_on_gpu, "cuda")
    needs = {"torch": torch.__version__, "compute capability": "9.0"}
    spec = replace(pair.spec, backend="inductor-cuda", needs=needs)
    package = runner.load(pair.bundle, spec, store, Device("cuda"), SessionCache())
    engine = Engine("verify", spec.block, package, store)
    assert torch_on_gpu.devices == {"cuda"} and torch_on_gpu.pinned == len(package.inputs) + len(package.outputs)
    for name, value in pair.store.values.items():
        store.values[name].copy_(value)
    other = Cache(store, list(state.tokens))
    for number in range(3):
        logits, expected = step([(engine, other), (pair.engine, state)], number)
        np.testing.assert_array_equal(logits, expected)
    assert torch_on_gpu.waits == 3
    for name, value in pair.store.values.items():
        assert torch.equal(store.values[name], value), name


def refuses_another_torch(pair: Pair) -> None:
    """Load a package that was built for another version or processor."""
    for name in ("torch", "cpu"):
        other = replace(pair.spec, needs={**pair.spec.needs, name: "1.0"})
        with pytest.raises(BackendError, match=rf"built for {name} 1\.0 and here is .*compile again"):
            runner.load(pair.bundle, other, pair.store, CPU, SessionCache())


@pytest.mark.parametrize(("family", "dtype"), [("llama", torch.float16), ("gemma2", torch.bfloat16)])
def test_a_program_for_a_gpu_leaves_nothing_on_the_cpu(family: str, dtype: torch.dtype) -> None:
    """The device "meta", of shapes alone, stands for the GPU: operators refuse tensors of two devices."""
    block = BLOCKS[family]
    graph = prepared(family)
    passes.run(passes.pipeline(block, CAPACITY), graph)
    passes.run([Half(dtype), *torch_aten.lowering(block.slots)], graph)
    program = inductor.on_device(traced(graph, block), "meta")
    values = [n.meta["val"] for n in program.graph.nodes if "val" in n.meta]
    constants = [*program.state_dict.values(), *program.constants.values()]
    assert {str(t.device) for t in [*values, *constants] if isinstance(t, torch.Tensor)} == {"meta"}
    inputs = [n.meta["val"] for n in program.graph.nodes if n.name in program.graph_signature.user_inputs]
    logits = program.module()(*(torch.empty_like(t, device="meta") for t in inputs))["logits"]
    assert logits.shape[1] == block.slots and logits.device.type == "meta"


def test_a_gpu_that_is_not_here_is_one_line(bundle: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert inductor.CUDA.requirements()[-1].endswith("sees no CUDA GPU; build on a machine that has one")
    with pytest.raises(BackendError, match=r"torch .* sees no CUDA GPU; specc doctor says"):
        runner.store(CacheSpec(8, {"0": (1, 4)}), Device("cuda"))


def test_a_gpu_without_room_is_one_line() -> None:
    def fails() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(BackendError, match=r"no room for weights, 3 of 81920 MiB being free; .* --max-seq-len"):
        runner.if_it_fits(fails, "weights", TorchOnGpu(free_bytes=3 << 20, total_bytes=80 << 30))


@pytest.mark.slow
def test_backends_side_by_side_in_one_bundle(model: Path, tmp_path: Path) -> None:
    """Recipes are unchanged; each backend replays the golden outputs; the first that runs is the default."""
    prompts, output = model.parent / "few.jsonl", tmp_path / "both.specc"
    prompts.write_text('{"prompt": "def wrap(text, width=70):"}\n', encoding="utf-8")
    options = CompileOptions(
        model=str(model),
        output=output,
        recipes=("prompt-lookup",),
        parameters={"prompt-lookup": {"prompt_lookup_num_tokens": 3}},
        prompts=prompts,
        golden_tokens=12,
        backends=("onnx", "inductor"),
    )
    bundle = compile_bundle(options).bundle
    names = [(e.name, e.backend) for e in bundle.manifest.engines]
    assert len(names) == len(set(names)) and {b for _, b in names} == {"onnx", "inductor"}
    compiled = {n for n, b in names if b == "inductor"}
    assert compiled == {"prefill", "decode", "verify-chain-4"} < {n for n, b in names if b == "onnx"}
    for backend in (None, "onnx", "inductor"):
        proof = prove(output, device=Device(backend=backend), allow_native_code=True)
        assert [r.verdict for r in proof.replayed] == ["identical"] * 2
        instance = specc.load(output, backend=backend, allow_native_code=True)
        assert instance.engines.backend == (backend or "onnx")
    cases = golden.read_cases(bundle.file(golden.FILE))
    assert len(cases[0].token_ids) == 12
    with pytest.raises(
        BackendError, match="has no engines by tensorrt, only by onnx, inductor; compile with --backend"
    ):
        specc.load(output, backend="tensorrt")
    with pytest.raises(
        BackendError,
        match=r"engines by onnx \(fp32\), inductor \(fp32\), none of which runs so on cuda; leave out --backend",
    ):
        specc.load(output, device="cuda", backend="inductor")
    shutil.rmtree(output)


def test_a_fast_lowering_is_for_onnx(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="backend inductor compiles torch's operators; leave out --lowering"):
        inductor.CPU.build(prepared("llama"), Block(Tree.chain(1)), tmp_path, "", tmp_path / "x.pt2", Options("fast"))


def test_the_engines_of_a_bundle_of_one_backend_share_one_weights_file(bundle: Path) -> None:
    opened = open_bundle(bundle)
    assert {e.backend for e in opened.manifest.engines} == {"onnx"}
    assert {e.weights for e in opened.manifest.engines} == {"weights.safetensors"} == {opened.manifest.weights}
