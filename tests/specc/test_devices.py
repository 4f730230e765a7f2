"""Caches and commits on a device, by the graph that a GPU runs, the device being the CPU."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime as ort
import pytest
from graphs import prepared

from specc import passes, weights
from specc.backends import Built, Options, onnx
from specc.compiler import Options as CompileOptions
from specc.compiler import compile_bundle
from specc.proof import prove
from specc.runtime.block import Block, Parents
from specc.runtime.engine import Engine
from specc.runtime.engines.ort import OrtRunner, Rows, load, session_options
from specc.runtime.engines.ort_device import DeviceRows, DeviceRunner
from specc.runtime.errors import BackendError
from specc.runtime.manifest import CacheSpec, EngineSpec
from specc.runtime.place import Place
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
    host, device = Rows(caches), DeviceRows(caches, "cpu")
    verify, keep = session(tmp_path / spec.file), session(tmp_path / made.commit)
    engines = (
        Engine("host", block, OrtRunner(verify, spec, host), host),
        Engine("device", block, DeviceRunner(verify, spec, device, keep), device),
    )
    states = [Cache(e.store) for e in engines]
    for step in range(5):
        tokens = [(7 * step + i) % 120 for i in range(TREE.slots)]
        found = [e.run(c, tokens, TREE).logits_NV[: TREE.slots].copy() for e, c in zip(engines, states, strict=True)]
        np.testing.assert_array_equal(*found)
        for engine, cache in zip(engines, states, strict=True):
            engine.keep(cache, PATH)
    rows = len(states[0])
    assert rows == 5 * len(PATH) == len(states[1])
    for name, value in host.values.items():
        kept = value.numpy()[:, :, :rows]
        assert np.abs(kept).min(-1).max() > 0
        np.testing.assert_array_equal(kept, device.values[name].numpy()[:, :, :rows])


def test_chains_need_no_graph_to_keep_rows(tmp_path: Path) -> None:
    spec, made = build(tmp_path, Block(Tree.chain(4)))
    assert made.commit == ""
    rows = DeviceRows(CacheSpec(CAPACITY, {str(i): (2, 16) for i in range(3)}), "cpu")
    runner = DeviceRunner(session(tmp_path / spec.file), spec, rows)
    with pytest.raises(BackendError, match="engine verify has no file that keeps its rows"):
        runner.keep(0, [1])


def test_half_precision_says_what_full_precision_says(tmp_path: Path) -> None:
    """fp16 on the CPU provider, which computes most of it in fp32; logits of a scale near 1."""
    said = []
    for kind in ("fp32", "fp16"):
        directory = tmp_path / kind
        directory.mkdir()
        spec, _ = build(directory, Block(TREE, weights=kind))
        dtype = next(t.dtype for t in spec.inputs if t.name.endswith(".key"))
        rows = Rows(CacheSpec(CAPACITY, {str(i): (2, 16) for i in range(3)}, dtype))
        engine = Engine("verify", spec.block, OrtRunner(session(directory / spec.file), spec, rows), rows)
        said.append(engine.run(Cache(rows), [3, 1, 4, 1, 5, 9, 2], TREE).logits_NV.copy())
    assert 0 < np.abs(said[0] - said[1]).max() < 0.03
    assert said[1].dtype == np.float32


def test_a_provider_that_is_not_here_is_named_with_its_remedy(tmp_path: Path) -> None:
    spec, _ = build(tmp_path, Block(Tree.chain(1)))
    rows = Rows(CacheSpec(CAPACITY, {str(i): (2, 16) for i in range(3)}))
    bundle = SimpleNamespace(file=lambda name: tmp_path / name)
    with pytest.raises(BackendError, match=r"no OpenVINOExecutionProvider, only .*install specc\[openvino\]"):
        load(bundle, spec, rows, Place(provider="openvino"))


def test_what_does_not_go_together_is_refused() -> None:
    for place, told in (
        ({"device": "tpu"}, "unknown device 'tpu'; there are cpu and cuda"),
        ({"provider": "coreml"}, "unknown execution provider 'coreml'; there are cpu, cuda, tensorrt, openvino"),
        ({"provider": "cuda"}, "runs on a GPU; add --device cuda"),
        ({"provider": "openvino", "device": "cuda"}, "runs on the CPU"),
        ({"provider": "openvino", "backend": "inductor"}, "is of backend onnx, not inductor"),
    ):
        with pytest.raises(BackendError, match=told):
            Place(**place)


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
