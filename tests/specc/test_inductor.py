"""Packages of AOTInductor say what ONNX engines of the same graph say, and leave the same rows."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from graphs import prepared

import specc
from specc import golden, passes, weights
from specc.backends import Options, inductor, onnx
from specc.compiler import Options as CompileOptions
from specc.compiler import compile_bundle
from specc.proof import prove
from specc.runtime.block import Block, Parents
from specc.runtime.bundle import open_bundle
from specc.runtime.engine import Engine
from specc.runtime.engines import inductor as runner
from specc.runtime.engines import ort
from specc.runtime.errors import BackendError
from specc.runtime.manifest import CacheSpec, EngineSpec
from specc.runtime.place import CPU, Place
from specc.runtime.sequence import Cache
from specc.runtime.tree import Tree

pytestmark = [pytest.mark.torch, pytest.mark.model]

TREE = Tree((-1, 0, 0, 1, 1, 2, 5))
PATH = [0, 2, 5]
CAPACITY = 64
BLOCKS = {"llama": Block(Parents(9)), "gemma2": Block(TREE), "cohere2": Block(TREE, ("top_k:4", "logits"))}


@pytest.fixture(autouse=True)
def compiler() -> None:
    if missing := inductor.requirements():
        pytest.skip(missing[0])


@pytest.mark.parametrize("family", BLOCKS)
def test_a_package_says_what_an_onnx_engine_says(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPECC_CACHE", "off")
    block, file, engines = BLOCKS[family], tmp_path / "weights.safetensors", []
    graph = prepared(family)
    weights.write(weights.collect(graph), file)
    for backend, module, load in (("onnx", onnx, ort), ("inductor", inductor, runner)):
        twin = passes.fork(graph)
        passes.run(passes.pipeline(block, CAPACITY), twin)
        made = module.build(twin, block, file, "", tmp_path / f"verify{module.suffix}")
        spec = EngineSpec("verify", backend, f"verify{module.suffix}", block, (), made.inputs, made.outputs, (),
                          needs=made.needs)  # fmt: skip
        keys = [t for t in made.inputs if t.name.endswith(".key")]
        caches = CacheSpec(CAPACITY, {t.name.split(".")[1]: (t.shape[1], t.shape[3]) for t in keys}, keys[0].dtype)
        manifest = SimpleNamespace(weights=file.name)
        bundle = SimpleNamespace(file=lambda name: tmp_path / name, manifest=manifest)
        store = load.store(caches, CPU)
        run = (
            load.load(bundle, spec, store, CPU)
            if backend == "inductor"
            else ort.OrtRunner(ort.ort.InferenceSession(tmp_path / spec.file, ort.session_options()), spec, store)
        )
        engines.append(Engine("verify", block, run, store))
    states = [Cache(e.store, [1, 2, 3]) for e in engines]  # no tree is ever run on an empty cache
    for step in range(6):
        tokens = [(11 * step + 3 * i) % 120 for i in range(TREE.slots)]
        found = [e.run(c, tokens, TREE).logits_NV[: TREE.slots].copy() for e, c in zip(engines, states, strict=True)]
        np.testing.assert_allclose(*found, atol=1e-4, rtol=1e-4)
        for engine, cache in zip(engines, states, strict=True):
            engine.keep(cache, PATH)
    rows = len(states[0])
    for name, value in engines[0].store.values.items():
        kept = engines[1].store.values[name].numpy()[:, :, :rows]
        np.testing.assert_allclose(value.numpy()[:, :, :rows], kept, atol=1e-5)
    assert (tmp_path / "verify.pt2").stat().st_size < 4 << 20
    if family == "llama":
        refuses_another_torch(bundle, spec, store)


def refuses_another_torch(bundle: SimpleNamespace, spec: EngineSpec, store: runner.Rows) -> None:
    for what in ("torch", "cpu"):
        other = EngineSpec(**(vars(spec) | {"needs": {**spec.needs, what: "1.0"}}))
        with pytest.raises(BackendError, match=rf"built for {what} 1\.0 and here is .*compile again"):
            runner.load(bundle, other, store, CPU)


def test_backends_side_by_side_in_one_bundle(model: Path, tmp_path: Path) -> None:
    """Recipes are unchanged; each backend replays the golden outputs; the first that runs is the default."""
    prompts, output = model.parent / "few.jsonl", tmp_path / "both.specc"
    prompts.write_text('{"prompt": "def wrap(text, width=70):"}\n', encoding="utf-8")
    options = CompileOptions(
        str(model), output, ("prompt-lookup",), {"prompt-lookup": {"prompt_lookup_num_tokens": 3}}, prompts=prompts,
        golden_tokens=12, backends=("onnx", "inductor"),
    )  # fmt: skip
    bundle = compile_bundle(options).bundle
    names = [(e.name, e.backend) for e in bundle.manifest.engines]
    assert len(names) == len(set(names)) and {b for _, b in names} == {"onnx", "inductor"}
    assert {n for n, b in names if b == "onnx"} == {n for n, b in names if b == "inductor"}
    for backend in (None, "onnx", "inductor"):
        proof = prove(output, place=Place(backend=backend))
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
        inductor.build(prepared("llama"), Block(Tree.chain(1)), tmp_path, "", tmp_path / "x.pt2", Options("fast"))


def test_the_bundle_is_as_it_was_before_backends_had_names(bundle: Path) -> None:
    """A bundle of one backend says nothing of it that it did not say before, but for the weights' file."""
    opened = open_bundle(bundle)
    assert {e.backend for e in opened.manifest.engines} == {"onnx"}
    assert {e.weights for e in opened.manifest.engines} == {"weights.safetensors"} == {opened.manifest.weights}
