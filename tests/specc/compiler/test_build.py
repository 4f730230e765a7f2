"""Weights that requested engines read, and engines in files that they share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from graphs import prepared
from safetensors.torch import load_file

from specc.backends import Options as BuildOptions
from specc.compiler.build import Site, build_engines, write_weights
from specc.compiler.graphs import Graphs, PreparedGraph, quantize_graphs
from specc.compiler.requests import EngineRequest
from specc.compiler.stages import Stages
from specc.compiler.weights import collect
from specc.runtime.block import Block, Layers
from specc.runtime.engines.onnx_file import parse
from specc.runtime.tree import Tree

pytestmark = pytest.mark.torch

CAPACITY = 64
EXIT = Block(Tree.chain(1), layers=Layers(exit_after=1), weights="int4")


def request(block: Block, *, name: str = "engine", any_width: bool = False) -> EngineRequest:
    return EngineRequest(name=name, backend="onnx", block=block, needed=True, any_width=any_width)


def graphs_for(*blocks: Block) -> Graphs:
    families = {"target": "llama", "assistant": "qwen3"}
    fp32 = {(m, "fp32"): PreparedGraph(prepared(families[m]), ()) for m in {block.model for block in blocks}}
    return quantize_graphs(fp32, blocks)


def site(directory: Path, options: BuildOptions | None = None, **changes: Any) -> Site:
    return Site(directory=directory, capacity=CAPACITY, options=options or BuildOptions(), **changes)


def stored(directory: Path, *blocks: Block, options: BuildOptions | None = None) -> dict[str, set[str]]:
    """Return the names of the tensors in each file that is written for these blocks."""
    write_weights([request(block) for block in blocks], graphs_for(*blocks), site(directory, options))
    return {file.name: set(load_file(file)) for file in directory.glob("*.safetensors")}


def test_all_that_an_engine_of_all_layers_reads_is_stored(tmp_path: Path) -> None:
    block = Block(Tree.chain(1))
    assert stored(tmp_path, block) == {"weights.safetensors": set(collect(prepared("llama")))}


def test_layers_behind_an_exit_are_not_stored(tmp_path: Path) -> None:
    (names,) = stored(tmp_path, EXIT).values()
    assert any(".layers.0." in name for name in names) and any("_int4" in name for name in names)
    assert not any(".layers.1." in name or ".layers.2." in name for name in names)


def test_a_draft_that_exits_early_adds_its_own_layers_to_the_targets(tmp_path: Path) -> None:
    whole = set(collect(prepared("llama")))
    (names,) = stored(tmp_path, Block(Tree.chain(1)), EXIT).values()
    assert whole < names and all(".layers.0." in n or ".layers." not in n for n in names - whole)


def test_a_draft_model_in_4_bits_is_not_stored_in_full(tmp_path: Path) -> None:
    """The target's blocks read fp32, but that is no reason to store the assistant's fp32 matrices."""
    draft = Block(Tree.chain(1), weights="int4", model="assistant", cache="assistant")
    (names,) = stored(tmp_path, Block(Tree.chain(1)), draft).values()
    assistant = {name.removeprefix("assistant.") for name in names if name.startswith("assistant.")}
    matrices = {name.removesuffix("_scales").removesuffix("_int4") for name in assistant if "_int4" in name}
    assert matrices and not matrices & assistant


def test_a_file_of_a_half_type_holds_what_its_engines_read_alone(tmp_path: Path) -> None:
    names = stored(tmp_path, Block(Tree.chain(1), weights="bf16"), EXIT)
    assert names.keys() == {"weights-bf16.safetensors", "weights.safetensors"}
    assert not any("_int4" in name for name in names["weights-bf16.safetensors"])


SPLIT = BuildOptions(split_weights=True)
DRAFT = Block(Tree.chain(1), weights="int4", model="assistant", cache="assistant")


def test_split_weights_have_a_file_for_each_model_and_type(tmp_path: Path) -> None:
    names = stored(tmp_path, Block(Tree.chain(1)), EXIT, DRAFT, options=SPLIT)
    assert names.keys() == {f"weights-{part}.safetensors" for part in ("target-fp32", "target-int4", "assistant-int4")}
    assert names["weights-target-fp32.safetensors"] == set(collect(prepared("llama")))
    assert any("_int4" in name for name in names["weights-target-int4.safetensors"])
    assert all(name.startswith("assistant.") for name in names["weights-assistant-int4.safetensors"])


def test_an_engine_refers_to_the_split_file_of_its_model_and_type_and_to_no_other(
    tmp_path: Path, stages: Stages, translations: None
) -> None:
    target = [request(block, name=f"engine-{i}") for i, block in enumerate((Block(Tree.chain(1)), EXIT, DRAFT))]
    graphs, where = graphs_for(*(r.block for r in target)), site(tmp_path, SPLIT)
    write_weights(target, graphs, where)
    engines = build_engines(target, graphs, where, stages)
    expected = ["target-fp32", "target-int4", "assistant-int4"]
    assert [e.weights for e in engines] == [f"weights-{part}.safetensors" for part in expected]
    for engine in engines:
        tensors = parse((tmp_path / engine.file).read_bytes()).graph.initializer
        places = {entry.value for t in tensors for entry in t.external_data if entry.key == "location"}
        assert places == {engine.weights} and engine.weight_inputs == {}


@pytest.fixture
def titles() -> list[str]:
    return []


@pytest.fixture
def stages(titles: list[str]) -> Stages:
    """Stages that note their titles."""
    return Stages(lambda title, done, total: titles.append(title), {"build": 1.0})


def test_chains_that_differ_in_width_alone_share_a_file(
    tmp_path: Path, stages: Stages, titles: list[str], translations: None
) -> None:
    blocks = {n: Block(Tree.chain(n)) for n in (1, 4, 3)}
    tree = Block(Tree((-1, 0, 0)))
    target = [
        request(blocks[1], name="one", any_width=True),
        request(tree, name="tree"),
        request(blocks[4], name="four", any_width=True),
        request(blocks[3], name="three"),
    ]
    graphs, where = graphs_for(tree), site(tmp_path, dump=tmp_path / "dump")
    write_weights(target, graphs, where)
    engines = build_engines(target, graphs, where, stages)
    assert [(e.name, e.file) for e in engines] == [
        ("one", "one.onnx"),
        ("tree", "tree.onnx"),
        ("four", "one.onnx"),
        ("three", "three.onnx"),
    ]
    assert [e.block for e in engines] == [r.block for r in target]
    assert [e.inputs[0].shape for e in engines] == [(1, 1), (1, 3), (1, 4), (1, 3)]
    assert all(e.layers == ("0", "1", "2") and e.weights == "weights.safetensors" for e in engines)
    details = ["one and 1 more widths, 1 of 3", "tree, 2 of 3", "three, 3 of 3"]
    assert titles == ["build the engines", *(f"build the engines · {detail}" for detail in details)]
    assert {f.name for f in (tmp_path / "dump").iterdir()} == {"one", "tree", "three"}


def test_of_several_backends_each_is_named_as_it_builds(
    tmp_path: Path, stages: Stages, titles: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("specc.compiler.build.call_each", lambda calls, **others: [others["begin"](0), []][1:])
    block = Block(Tree.chain(1))
    target = [EngineRequest(name="decode", backend=name, block=block, needed=True) for name in ("onnx", "tensorrt-rtx")]
    with pytest.raises(KeyError):  # nothing was built
        build_engines(target, graphs_for(block), site(tmp_path), stages)
    assert titles == ["build the engines", "build the engines · decode by onnx, 1 of 2"]
