"""Blocks of the demo model through TensorRT's own parser and builder, which need no GPU; what runs needs one.

Attention is fused in every engine, and inputs, outputs and what is updated in place are what the manifest says. Each
block is built for one GPU, in turns, some of them of two layers; `pytest -m slow` builds all whole for all GPUs.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx_ir as ir
import pytest
import torch
from demo import BLOCKS, CAPACITY, demo
from thorough import slow

from specc import passes
from specc.backends import Options, backend, check, check_blocks, onnx
from specc.backends.commit_graph import commit, moves
from specc.backends.tensorrt import RTX, TENSORRT, EngineBuilder, attentions, make_weights_inputs
from specc.compiler import weights
from specc.runtime.block import Block, Layers
from specc.runtime.engines.tensorrt_library import listener
from specc.runtime.errors import BackendError, SpeccWarning
from specc.runtime.extras import package
from specc.runtime.tree import Tree

pytestmark = [pytest.mark.torch, pytest.mark.model]
CAPABILITIES = "8.6", "8.9", "12.0"
ALIKE = "window", "draft", "verify", "prefill"  # More of the operators that the other blocks have, or fewer.
WHOLE = "decode", "verify"  # The blocks that the suite builds whole. To build one takes 4 s.
NUMPY = {"INT64": "int64", "INT32": "int32", "BOOL": "bool", "FLOAT": "float32", "HALF": "float16", "BF16": "bfloat16"}


@pytest.fixture(scope="module")
def trt() -> Any:
    """Import TensorRT for RTX, or skip."""
    return pytest.importorskip(
        "tensorrt_rtx", reason="tensorrt-rtx is not installed: pip install specc-compiler[tensorrt-rtx]"
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write the weights in each type; return the files by type."""
    directory = tmp_path_factory.mktemp("weights")
    files = {dtype: directory / weights.file_name(dtype) for dtype in RTX.types}
    for dtype, file in files.items():
        weights.write_type(weights.collect(demo()), file, dtype)
    return files


def model(name: str, dtype: str, weights_file: Path, layers: Layers | None = None) -> tuple[ir.Model, Block]:
    """Translate a block of the demo model, whole or of some layers."""
    block = BLOCKS[name]
    block = replace(block, weights=dtype, layers=layers or block.layers)
    graph = passes.fork(demo())
    passes.run(passes.pipeline(block, CAPACITY), graph)
    onnx_model = onnx.translate(graph, block, "portable", rows=moves(block))
    make_weights_inputs(onnx_model, weights_file, "")
    return onnx_model, block


@pytest.mark.parametrize("dtype", [*slow("fp16"), *(dtype for dtype in RTX.types if dtype != "fp16")])
@pytest.mark.parametrize("name", [*slow(*ALIKE), *(name for name in BLOCKS if name not in ALIKE)])
def test_a_block_builds_for_a_gpu(name: str, dtype: str, trt: Any, files: dict[str, Path], tmp_path: Path) -> None:
    whole_model, block = model(name, dtype, files[dtype])
    inputs, outputs = onnx.tensors(whole_model)
    log = listener(trt)
    network: Any
    builder, network = EngineBuilder(RTX, "8.9").network(ir.to_proto(whole_model).SerializeToString(), log)
    assert described(network.get_input, network.num_inputs) == {(t.name, t.dtype, t.shape) for t in inputs}
    assert described(network.get_output, network.num_outputs) == {(t.name, t.dtype, t.shape) for t in outputs}
    layers = 4 if block.layers.exit_after else 12
    assert len(attentions(trt, network)) == layers
    assert in_place(trt, network) == {
        (f"past_key_values.{i}.{kind}", f"present.{i}.{kind}") for i in range(layers) for kind in ("key", "value")
    }
    del network, builder
    capability = CAPABILITIES[([*BLOCKS].index(name) + RTX.types.index(dtype)) % len(CAPABILITIES)]
    graph = whole_model if name in WHOLE else model(name, dtype, files[dtype], Layers(exit_after=2))[0]
    engine_builder, file = EngineBuilder(RTX, capability), tmp_path / f"{name}-{capability}.engine"
    assert engine_builder.write(graph, file), "attention is not fused"
    assert engine_builder.needs == {"tensorrt_rtx": trt.__version__, "compute_capability": capability}
    assert 1 << 16 < file.stat().st_size < files[dtype].stat().st_size  # the weights are not in there
    if moves(block):
        assert engine_builder.write(commit(inputs, block.slots, from_rows=True), tmp_path / "commit.engine")


@pytest.mark.slow
@pytest.mark.model
@pytest.mark.parametrize("capability", CAPABILITIES)
@pytest.mark.parametrize("dtype", RTX.types)
@pytest.mark.parametrize("name", BLOCKS)
def test_a_whole_block_builds(
    name: str, dtype: str, capability: str, trt: Any, files: dict[str, Path], tmp_path: Path
) -> None:
    whole_model, _ = model(name, dtype, files[dtype])
    assert EngineBuilder(RTX, capability).write(whole_model, tmp_path / "whole.engine"), "attention is not fused"


def described(get: Any, count: int) -> set[tuple[str, str, tuple[int, ...]]]:
    """Return the name, type and shape of each tensor."""
    tensors = [get(i) for i in range(count)]
    return {(t.name, NUMPY[t.dtype.name], tuple(t.shape)) for t in tensors}


def in_place(trt: Any, network: Any) -> set[tuple[str, str]]:
    """Return the input and the output of each cache that is updated in place."""
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    return {(x.get_input(0).name, x.get_output(0).name) for x in layers if x.type == trt.LayerType.KV_CACHE_UPDATE}


def test_the_stubs_that_calls_are_checked_against_are_those_of_the_bindings(trt: Any, tmp_path: Path) -> None:
    """Mypy holds each call in specc/backends/tensorrt.py and runtime/engines/tensorrt.py against them."""
    pytest.importorskip("pybind11_stubgen")
    stubs, generated = Path(__file__).parents[2] / "stubs/tensorrt_rtx.pyi", tmp_path / "generated.pyi"
    subprocess.run([sys.executable, stubs.with_name("make.py"), generated], check=True, capture_output=True)
    (_, *lines), (_, *expected) = (f.read_text().splitlines() for f in (stubs, generated))  # the first is the version
    assert lines == expected


def test_an_engine_can_hold_a_copy_of_its_weights(trt: Any, files: dict[str, Path], tmp_path: Path) -> None:
    block = Block(Tree.chain(1), layers=Layers(exit_after=1), weights="bf16")
    sizes = []
    for inside in (False, True):
        graph = passes.fork(demo())
        passes.run(passes.pipeline(block, CAPACITY), graph)
        file = tmp_path / f"{inside}.engine"
        result = RTX.build(graph, block, files["bf16"], "", file, Options("portable", "8.9", inside))
        sizes.append(file.stat().st_size)
        names = {t.name for t in result.inputs if not t.name.startswith("past_key_values")}
        assert (names == {"input_ids", "past_len"}) == inside
    assert sizes[1] - sizes[0] > 2 * 4096 * 256  # at least the embedding


def test_attention_that_does_not_fuse_is_taken_apart(trt: Any, tmp_path: Path) -> None:
    """Heads of 8: TensorRT has no kernel of that size."""
    builder, file = EngineBuilder(RTX, "8.9"), tmp_path / "odd.engine"
    with pytest.warns(SpeccWarning, match=r"odd.engine: attention does not fuse.*dedicated kernel\.$"):
        assert not builder.write(attention(8), file)
    assert file.stat().st_size
    assert builder.write(attention(64), file)


def attention(size: int) -> ir.Model:
    """Return a graph that is attention alone."""
    shape = [1, 2, 4, size]
    q, k, v = (ir.Value(name=n, type=ir.TensorType(ir.DataType.FLOAT16), shape=ir.Shape(shape)) for n in "qkv")
    out = ir.Value(name="out", type=ir.TensorType(ir.DataType.FLOAT16), shape=ir.Shape(shape))
    node = ir.Node("", "Attention", [q, k, v], outputs=[out])
    return ir.Model(ir.Graph([q, k, v], [out], nodes=[node], opset_imports={"": 24}), ir_version=11)


def test_what_the_parser_refuses_is_said_in_its_words(trt: Any, tmp_path: Path) -> None:
    capped = attention(64)
    node = capped.graph[0]
    node.attributes.add(ir.AttrFloat32("softcap", 2.0))
    node.name = "model.layers.3.self_attn/attention"
    with pytest.raises(BackendError, match=r"Attention at model\.layers\.3\.self_attn/attention: .*softcap"):
        EngineBuilder(RTX, "8.9").write(capped, tmp_path / "x.engine")


def test_a_gpu_that_cannot_be_built_for_is_refused(trt: Any) -> None:
    with pytest.raises(BackendError, match=r"has no '7\.0'; it has 7\.5, 8\.0, 8\.6, 8\.9, 12\.0"):
        EngineBuilder(RTX, "7.0")


def test_a_gpu_that_is_newer_than_all_names_is_built_for_as_the_current_one_and_an_older_one_is_refused(
    trt: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU of 9.0 the library builds for the current GPU, and then refuses to load what it built."""
    monkeypatch.setattr("specc.backends.tensorrt.gpu_capability", lambda: "13.0")
    for capability in (None, "13.0"):
        builder = EngineBuilder(RTX, capability)
        assert builder.target == trt.ComputeCapability.CURRENT and builder.needs["compute_capability"] == "13.0"
    assert EngineBuilder(RTX, "8.9").target == trt.ComputeCapability.SM89
    monkeypatch.setattr("specc.backends.tensorrt.gpu_capability", lambda: "9.0")
    for capability in (None, "9.0"):
        with pytest.raises(BackendError, match=r"has no '9\.0'; it has 7\.5, .*; take another --backend for this GPU"):
            EngineBuilder(RTX, capability)


def test_a_gpu_that_cannot_be_built_for_is_refused_before_a_model_is_read(trt: Any) -> None:
    with pytest.raises(BackendError, match=r"^recipe plain: tensorrt-rtx .* has no '7\.0'; it has 7\.5"):
        check_blocks(["tensorrt-rtx"], "plain", [Block(Tree.chain(1))], "fp16", Options(compute_capability="7.0"))


def test_what_is_missing_is_said_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    missing = TENSORRT.__class__("tensorrt-rtx", "tensorrt_of_nowhere", ".x", anywhere=True).requirements()
    assert len(missing) == 1 and f"pip install {package('tensorrt-rtx')}" in missing[0]
    missing = TENSORRT.__class__("tensorrt-rtx", "numpy.no_such_part", ".x", anywhere=True).requirements()
    assert missing[0].startswith("numpy.no_such_part does not import (No module named")
    monkeypatch.setattr("specc.backends.tensorrt.gpu_capability", lambda: None)
    monkeypatch.setitem(__import__("sys").modules, "tensorrt", torch)
    assert "this machine has none" in TENSORRT.requirements()[0]
    with pytest.raises(BackendError, match=r"backend tensorrt cannot build here: .*this machine has none"):
        check(["tensorrt"])


def test_types_and_lowerings_that_a_backend_lacks_are_refused(trt: Any) -> None:
    with pytest.raises(BackendError, match="tensorrt-rtx has no fp32; it has fp16, bf16"):
        check(["tensorrt-rtx"], "fp32")
    with pytest.raises(BackendError, match="unknown lowering 'slow'; there are fast, portable"):
        Options("slow")
    with pytest.raises(BackendError, match="no backend 'abacus'; there are onnx"):
        backend("abacus")
