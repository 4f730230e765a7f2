"""Packages of AOTInductor say what ONNX engines of the same graph say, and leave the same rows."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from graphs import prepared
from onnxruntime import InferenceSession

import specc
from specc import passes
from specc.backends import Options, inductor, onnx
from specc.backends.export import traced
from specc.backends.lowering import torch_aten
from specc.backends.lowering.half_precision import Half
from specc.compiler import Options as CompileOptions
from specc.compiler import compile_bundle, weights
from specc.exactness import golden
from specc.exactness.replay import prove
from specc.runtime.block import Block, Parents
from specc.runtime.bundle import open_bundle
from specc.runtime.device import CPU, Device
from specc.runtime.engine import Engine
from specc.runtime.engines import inductor as runner
from specc.runtime.engines import ort
from specc.runtime.engines.ort_cpu import OrtRunner, session_options
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
    if missing := inductor.CPU.requirements():
        pytest.skip(missing[0])


@pytest.mark.parametrize("family", BLOCKS)
def test_a_package_says_what_an_onnx_engine_says(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECC_CACHE", "off")
    block, file, engines = BLOCKS[family], tmp_path / "weights.safetensors", []
    graph = prepared(family)
    weights.write(weights.collect(graph), file)
    for backend, module, load in (("onnx", onnx.ONNX, ort), ("inductor", inductor.CPU, runner)):
        twin = passes.fork(graph)
        passes.run(passes.pipeline(block, CAPACITY), twin)
        made = module.build(twin, block, file, "", tmp_path / f"verify{module.suffix}")
        spec = EngineSpec(
            name="verify",
            backend=backend,
            file=f"verify{module.suffix}",
            block=block,
            layers=(),
            inputs=made.inputs,
            outputs=made.outputs,
            passes=(),
            needs=made.needs,
        )
        keys = [t for t in made.inputs if t.name.endswith(".key")]
        caches = CacheSpec(CAPACITY, {t.name.split(".")[1]: (t.shape[1], t.shape[3]) for t in keys}, keys[0].dtype)
        manifest = SimpleNamespace(weights=file.name)
        bundle = SimpleNamespace(file=lambda name: tmp_path / name, manifest=manifest)
        store = load.store(caches, CPU)
        run = (
            load.load(bundle, spec, store, CPU, SessionCache())
            if backend == "inductor"
            else OrtRunner(InferenceSession(tmp_path / spec.file, session_options()), spec, store)
        )
        engines.append(Engine("verify", block, run, store))
    states = [Cache(e.store, [1, 2, 3]) for e in engines]  # no tree is ever run on an empty cache
    for step in range(6):
        tokens = [(11 * step + 3 * i) % 120 for i in range(TREE.slots)]
        found = [e.run(c, tokens, TREE).logits_NV[: TREE.slots].copy() for e, c in zip(engines, states, strict=True)]
        np.testing.assert_allclose(*found, atol=1e-4, rtol=1e-4)
        for cache in states:
            cache.commit(tokens, PATH)
    rows = len(states[0])
    for name, value in engines[0].store.values.items():
        kept = engines[1].store.values[name].numpy()[:, :, :rows]
        np.testing.assert_allclose(value.numpy()[:, :, :rows], kept, atol=1e-5)
    assert (tmp_path / "verify.pt2").stat().st_size < 4 << 20
    if family == "llama":
        refuses_another_torch(bundle, spec, store)
    copied_to_a_device(bundle, engines[1], spec, caches, states[1])


def copied_to_a_device(bundle: Any, host: Engine, spec: EngineSpec, caches: CacheSpec, state: Cache) -> None:
    """What a GPU's engine does, the CPU being the GPU: the same outputs and rows, and one wait a step."""
    there = Elsewhere()
    rows = runner.TorchKV(caches, there, "cuda")
    spec = replace(spec, backend="inductor-cuda", needs={"torch": torch.__version__, "compute capability": "9.0"})
    cuda = Engine("verify", spec.block, runner.load(bundle, spec, rows, Device("cuda"), SessionCache()), rows)
    assert {"cuda"} == there.devices and there.pinned == len(cuda.runner.inputs) + len(cuda.runner.outputs)
    for name, value in host.store.values.items():
        rows.values[name].copy_(value)
    other = Cache(rows, list(state.tokens))
    for step in range(3):
        tokens = [(7 * step + 5 * i) % 120 for i in range(TREE.slots)]
        pairs = [(host, state), (cuda, other)]
        found = [e.run(c, tokens, TREE).logits_NV[: TREE.slots].copy() for e, c in pairs]
        np.testing.assert_array_equal(*found)
        for _, cache in pairs:
            cache.commit(tokens, PATH)
    assert there.waits == 3
    for name, value in host.store.values.items():
        assert torch.equal(rows.values[name], value), name


class Elsewhere:
    """Torch, whose GPU is the CPU: what it is asked to place there is counted."""

    def __init__(self) -> None:
        self.devices: set[str] = set()
        self.pinned = self.waits = 0
        self.cuda = self
        self.backends = torch.backends

    def __getattr__(self, name: str) -> Any:
        found = getattr(torch, name)
        if name not in ("zeros", "zeros_like", "tensor", "asarray"):
            return found

        def placed(*args: Any, device: str | None = None, pin_memory: bool = False, **kwargs: Any) -> torch.Tensor:
            self.devices |= {device} - {None}
            self.pinned += pin_memory
            made: torch.Tensor = found(*args, **kwargs)
            return made.clone() if device else made

        return placed

    def get_device_capability(self) -> tuple[int, int]:
        return 9, 0

    def current_stream(self) -> Any:
        return self

    def synchronize(self) -> None:
        self.waits += 1


def refuses_another_torch(bundle: SimpleNamespace, spec: EngineSpec, store: runner.TorchKV) -> None:
    for what in ("torch", "cpu"):
        other = replace(spec, needs={**spec.needs, what: "1.0"})
        with pytest.raises(BackendError, match=rf"built for {what} 1\.0 and here is .*compile again"):
            runner.load(bundle, other, store, CPU, SessionCache())


@pytest.mark.parametrize(("family", "dtype"), [("llama", torch.float16), ("gemma2", torch.bfloat16)])
def test_a_program_for_a_gpu_leaves_nothing_on_the_cpu(family: str, dtype: torch.dtype) -> None:
    """Another device, of shapes alone, stands for the GPU: operators refuse tensors of two devices."""
    block = BLOCKS[family]
    graph = prepared(family)
    passes.run(passes.pipeline(block, CAPACITY), graph)
    passes.run([Half(dtype), *torch_aten.lowering(block.slots)], graph)
    program = inductor.on_device(traced(graph, block), "meta")
    values = [n.meta["val"] for n in program.graph.nodes if "val" in n.meta]
    held = [*program.state_dict.values(), *program.constants.values()]
    assert {str(t.device) for t in [*values, *held] if isinstance(t, torch.Tensor)} == {"meta"}
    given = [n.meta["val"] for n in program.graph.nodes if n.name in program.graph_signature.user_inputs]
    made = program.module()(*(torch.empty_like(t, device="meta") for t in given))
    assert made["logits"].shape[1] == block.slots and made["logits"].device.type == "meta"


def test_a_gpu_that_is_not_here_is_one_line(bundle: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    assert inductor.CUDA.requirements()[-1].endswith("sees no CUDA GPU; build on a machine that has one")
    with pytest.raises(BackendError, match=r"torch .* sees no CUDA GPU; specc doctor says"):
        runner.store(CacheSpec(8, {"0": (1, 4)}), Device("cuda"))


def test_a_gpu_without_room_is_one_line() -> None:
    class Full(Elsewhere):
        OutOfMemoryError = torch.OutOfMemoryError

        def mem_get_info(self) -> tuple[int, int]:
            return 3 << 20, 80 << 30

    def fails() -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(BackendError, match=r"no room for weights, 3 of 81920 MiB being free; .* --max-seq-len"):
        runner.if_it_fits(fails, "weights", Full())


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
        proof = prove(output, device=Device(backend=backend))
        assert [r.verdict for r in proof.replayed] == ["identical"] * 2
        assert specc.load(output, backend=backend).engines.backend == (backend or "onnx")
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


def test_the_bundle_is_as_it_was_before_backends_had_names(bundle: Path) -> None:
    """A bundle of one backend says nothing of it that it did not say before, but for the weights' file."""
    opened = open_bundle(bundle)
    assert {e.backend for e in opened.manifest.engines} == {"onnx"}
    assert {e.weights for e in opened.manifest.engines} == {"weights.safetensors"} == {opened.manifest.weights}
