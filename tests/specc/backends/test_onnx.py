"""Engines of the ONNX backend, run on a real cache, compute what transformers computes of the same sequences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
from engine_bench import CAPACITY, DEEP, FAST, FULL, KINDS, PROMPT, WIDE, Bench, logits_of, run_blocks, same
from engine_files import build
from families import FAMILIES, NEAR_ANOTHER, POSITIONS, WINDOW
from graphs import captured, prepared
from torch.fx import GraphModule

from specc import passes
from specc.backends import Options, onnx
from specc.backends.onnx import ONNX
from specc.compiler import weights
from specc.passes.find import outputs as graph_outputs
from specc.passes.find import set_outputs
from specc.runtime.block import Block, Parents
from specc.runtime.call import Call
from specc.runtime.errors import BackendError
from specc.runtime.manifest import Tensor
from specc.runtime.tree import Tree

pytestmark = [pytest.mark.torch, pytest.mark.usefixtures("translations")]

SAME_ENGINES = {
    "llama-llama3",
    "llama-yarn",
    "llama-dynamic",
    "phi3-longrope",
    "stablelm-parallel",
    "gpt_neox-sequential",
}  # engines like those of their family, with other tables
EVERY_BLOCK = ("llama", "gemma2", "gpt_neox", "cohere2", "opt", "qwen3_moe")
LATER = (
    pytest.param(family, marks=pytest.mark.slow) for family in ("llama", "cohere2", "opt", "deepseek_v3", "gpt_oss")
)
PORTABLE = ("gemma2", *LATER)  # gemma2 has windows, as cohere2, and what cannot be fused.


def families() -> Iterator[Any]:
    """Yield the families whose engines are of one kind. Those that differ from another by little are slow ones.

    gpt_oss is slow, too: test_onnx_kernels.py runs it by the other lowering.
    """
    for family in FAMILIES:
        if family not in SAME_ENGINES.union(EVERY_BLOCK):
            yield pytest.param(family, marks=pytest.mark.slow) if family in NEAR_ANOTHER | {"gpt_oss"} else family


@pytest.mark.parametrize("family", families())
def test_each_kind_of_engine(family: str, tmp_path: Path) -> None:
    """Run prefill, decode, a tree to verify, and a draft."""
    run_blocks(family, tmp_path, KINDS)


@pytest.mark.parametrize(
    "family",
    [pytest.param(family, marks=pytest.mark.slow) if family == "cohere2" else family for family in EVERY_BLOCK],
)  # cohere2 has windows, as gemma2.
def test_every_block(family: str, tmp_path: Path) -> None:
    run_blocks(family, tmp_path, FULL)


@pytest.mark.parametrize("family", PORTABLE)
def test_every_block_in_standard_operators(family: str, tmp_path: Path) -> None:
    import onnx as format_

    run_blocks(family, tmp_path, FULL, Options("portable"))
    for name in FULL:
        model = format_.load(tmp_path / f"{name}.onnx", load_external_data=False)
        assert [(i.domain, i.version) for i in model.opset_import] == [("", 24)]
        kinds = [node.op_type for node in model.graph.node]
        layers = sum(i.name.endswith(".key") for i in model.graph.input)
        assert kinds.count("TensorScatter") == 2 * layers
        written_out = layers if family in ("gemma2", "gpt_oss") else 0
        assert (kinds.count("Attention"), kinds.count("Softmax") >= written_out) == (layers - written_out, True)


def test_what_the_tests_run_is_longer_and_deeper_than_a_window() -> None:
    assert PROMPT > 2 * WINDOW and DEEP.depth.max() > WINDOW and not DEEP.is_chain


@pytest.mark.parametrize("family", ["gpt2", "opt"])
def test_slots_beyond_the_last_learned_position_are_padding(family: str, tmp_path: Path) -> None:
    """The tables of positions end with the context; a tree at its end reaches beyond."""
    graph, capacity = captured(family), POSITIONS + 16
    passes.run(passes.preparation(capacity), graph)
    bench = Bench(family, tmp_path, {"parents": Block(Parents(12))}, graph, capacity)
    bench.prefill("parents", POSITIONS - 6)
    fitting = Tree(WIDE.parents[:6])
    draws = bench.draw(WIDE.slots)
    outputs = Call(bench.engines["parents"], bench.cache, 0, draws, Tree.chain(10)).run()
    same(logits_of(outputs)[:6], bench.truth(draws[:6])[0])
    bench.verify("parents", fitting)


@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_a_runtime_may_bind_smaller_caches_than_the_manifest_has(family: str, tmp_path: Path) -> None:
    tree = Tree((-1, 0, 0, 1, 1, 2))
    blocks = {"decode": Block(Tree.chain(1)), "tree": Block(tree), "parents": Block(Parents(6))}
    bench = Bench(family, tmp_path, blocks, rows=PROMPT + 24)
    for spec in bench.specs.values():
        assert {t.shape[2] for t in spec.inputs if t.name.endswith(".key")} == {CAPACITY}
    bench.prefill("decode", PROMPT)
    bench.decode("decode", 2)
    for name in ("tree", "parents"):
        bench.verify(name, tree)


@pytest.mark.parametrize("family", ["llama", "mistral", "gemma2", "opt"])
def test_a_layers_attention_is_one_node_and_weights_are_referred_to(family: str, tmp_path: Path) -> None:
    import onnx as format_

    Bench(family, tmp_path, {"decode": Block(Tree.chain(1))})
    graph = format_.load(tmp_path / "decode.onnx", load_external_data=False).graph
    kinds = [node.op_type for node in graph.node]
    windows = [a.i for n in graph.node for a in n.attribute if a.name == "local_window_size"]
    assert kinds.count("GroupQueryAttention") == 3 and "Softmax" not in kinds
    assert kinds.count("Range") == (family == "opt") and set(windows) == (
        {WINDOW} if "sliding_window" in FAMILIES[family] else set()
    )
    assert (tmp_path / "decode.onnx").stat().st_size < 40_000


def test_a_weight_that_is_read_in_two_ways_has_two_names_over_the_same_bytes(tmp_path: Path) -> None:
    """gemma2's embedding is gathered from, and is its head too."""
    Bench("gemma2", tmp_path, {"decode": Block(Tree.chain(1))})
    model = ir.load(tmp_path / "decode.onnx")
    tensors = {name: value.const_value for name, value in model.graph.initializers.items()}
    external = {name: t for name, t in tensors.items() if isinstance(t, ir.ExternalTensor)}
    (rows,) = (name for name in external if name.endswith(".rows"))
    whole = rows.removesuffix(".rows")
    assert external[rows].offset == external[whole].offset and external[rows].length == external[whole].length
    readers = {name: {node.op_type for node in model.graph.initializers[name].consumers()} for name in (rows, whole)}
    assert readers == {rows: {"Gather"}, whole: {"FusedMatMul"}}


def test_what_is_small_stands_in_the_file_and_what_is_large_must_be_a_weight(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    weights.write({"model.b": torch.ones(512)}, file)
    sizes = {"a": 255, "b": 512, "c": 600}  # floats: "a" is smaller than INLINE
    values = {name: initializer(name, size) for name, size in sizes.items()}
    model = ir.Model(graph_over(list(values.values())), ir_version=10)
    onnx.link_external_weights(model, file, "model.", tmp_path / "e.onnx")
    assert {name: isinstance(value.const_value, ir.ExternalTensor) for name, value in values.items()} == {
        "a": False,
        "b": True,
        "c": False,  # a constant of a pass
    }
    linked = values["b"].const_value
    assert isinstance(linked, ir.ExternalTensor) and linked.length == 2048 and linked.numpy().tolist() == [1.0] * 512
    large = ir.Model(graph_over([initializer("d", onnx.LARGEST_CONSTANT // 4 + 1)]), ir_version=10)
    with pytest.raises(BackendError, match="d of 1048580 bytes is in no weights file"):
        onnx.link_external_weights(large, file, "model.", tmp_path / "e.onnx")


def initializer(name: str, size: int) -> ir.Value:
    """Return an initializer of `size` zeros."""
    tensor = ir.Tensor(np.zeros(size, np.float32), name=name)
    return ir.Value(name=name, const_value=tensor, shape=tensor.shape, type=ir.TensorType(tensor.dtype))


def graph_over(values: list[ir.Value], *nodes: ir.Node) -> ir.Graph:
    """Return a graph that has these initializers and nodes."""
    return ir.Graph([], [], nodes=list(nodes), initializers=values, opset_imports={"": 23})


def test_nodes_are_named_after_their_modules() -> None:
    scopes = {"pkg.torch.onnx.name_scopes": "['', 'model.layers.3', 'add']"}
    inside = ir.Node("", "Add", [], outputs=[ir.Value(name="x")], name="node_1", metadata_props=scopes)
    outside = ir.Node("", "Add", [], outputs=[ir.Value(name="y")], name="node_2")
    onnx.name_nodes_after_modules(ir.Model(graph_over([], inside, outside), ir_version=10))
    assert (inside.name, outside.name) == ("model.layers.3/node_1", "node_2")


def test_metadata_goes_and_so_do_names_of_results_that_nobody_reads() -> None:
    m = {"m": "1"}
    values = [
        ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([1]), metadata_props=m.copy())
        for name in ("y", "mean", "variance", "sum", "out")
    ]
    kind = "SkipSimplifiedLayerNormalization"
    norm = ir.Node("com.microsoft", kind, [], outputs=values[:4], metadata_props=m.copy())
    add = ir.Node("", "Add", [values[0], values[0]], outputs=values[4:])
    graph = ir.Graph([], [values[4]], nodes=[norm, add], opset_imports={"": 23}, metadata_props=m.copy())
    model = ir.Model(graph, ir_version=10, metadata_props=m.copy())
    onnx.drop_metadata(model)
    assert [value.name for value in values] == ["y", "", "", "", "out"]
    assert [value.type is None for value in values] == [True, True, True, True, False]
    assert not any([model.metadata_props, graph.metadata_props, norm.metadata_props])
    assert not any(value.metadata_props for value in values)


@pytest.mark.parametrize("slots", [1, 7])
def test_an_open_size_is_stated_as_asked_for(slots: int) -> None:
    kind = ir.TensorType(ir.DataType.INT64)
    value = ir.Value(name="input_ids", type=kind, shape=ir.Shape([1, "slots"]))
    model = ir.Model(ir.Graph([value], [], nodes=[], opset_imports={"": 23}), ir_version=10)
    assert onnx.tensors(model, slots) == ((Tensor("input_ids", "int64", (1, slots)),), ())


def with_an_odd_operator(graph: GraphModule) -> GraphModule:
    """Put an operator behind the logits that torch.onnx cannot translate."""
    logits = graph_outputs(graph)["logits"]
    with graph.graph.inserting_after(logits):
        odd = graph.graph.call_function(torch.ops.aten.special_bessel_j0.default, (logits,))
    set_outputs(graph, graph_outputs(graph) | {"logits": odd})
    return graph


def test_a_graph_that_torch_onnx_cannot_translate_is_one_line(tmp_path: Path) -> None:
    """It is tried as it stands and decomposed; the reason is torch.onnx's."""
    file, graph = tmp_path / "w.safetensors", prepared("llama")
    weights.write(weights.collect(graph), file)
    passes.run(passes.pipeline(Block(Tree.chain(1)), CAPACITY), graph)
    with pytest.raises(BackendError, match=r"torch\.onnx cannot translate the graph: .*bessel") as e:
        ONNX.build(with_an_odd_operator(graph), Block(Tree.chain(1)), file, "", tmp_path / "e.onnx")
    assert "\n" not in str(e.value)


def test_one_file_for_all_widths_is_for_the_fast_lowering_of_operators_that_have_a_translation() -> None:
    chain = Block(Tree.chain(1))
    assert ONNX.one_file_for_all_widths(prepared("llama"), chain)
    assert not ONNX.one_file_for_all_widths(with_an_odd_operator(prepared("llama")), chain)
    assert not ONNX.one_file_for_all_widths(prepared("llama"), chain, Options("portable"))
    assert not ONNX.one_file_for_all_widths(prepared("llama"), replace(chain, weights="fp16"))


def test_the_backend_needs_nothing_else_and_builds_in_parallel() -> None:
    assert ONNX.requirements() == [] and ONNX.builds_in_parallel and ONNX.types[0] == "fp32"


def test_types_that_a_lowering_lacks_are_refused() -> None:
    graph = prepared("llama")
    with pytest.raises(BackendError, match="the fast lowering has no bf16; take --lowering portable"):
        onnx.translate(graph, Block(Tree.chain(1), weights="bf16"), "fast")
    with pytest.raises(BackendError, match="the portable lowering has no int4 weights; take fp32, fp16, bf16"):
        onnx.translate(graph, Block(Tree.chain(1), weights="int4"), "portable")


@pytest.mark.parametrize("tree", [Tree.chain(4), DEEP])
def test_only_a_tree_of_the_portable_lowering_has_a_file_that_commits(tree: Tree, tmp_path: Path) -> None:
    block = Block(tree)
    assert build(tmp_path, block).commit == ("" if tree.is_chain else "verify.commit.onnx")
    assert build(tmp_path, block, FAST).commit == ""
