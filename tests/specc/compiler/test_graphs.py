"""Graphs in each type of weights that engines of a model read, and in no other."""

from __future__ import annotations

from pathlib import Path

import pytest
from graphs import model, operators, prepared

from specc.compiler.graphs import PreparedGraph, graph_key, pack_graphs, prepare, quantize_graphs
from specc.runtime.block import Block
from specc.runtime.manifest import PassRecord
from specc.runtime.tree import Tree

pytestmark = pytest.mark.torch

RECORD = PassRecord(name="Prepared()", changed=1, nodes_before=2, nodes_after=2, seconds=0.0)


def block(weights: str, model: str = "target") -> Block:
    return Block(Tree.chain(1), weights=weights, model=model)


@pytest.mark.parametrize(
    ("weights", "kind"), [("fp32", "fp32"), ("fp16", "fp32"), ("bf16", "fp32"), ("int8", "int8"), ("int4", "int4")]
)
def test_half_precision_is_made_from_the_graph_in_fp32(weights: str, kind: str) -> None:
    graph = PreparedGraph(prepared("llama"), ())
    graphs = {("assistant", name): graph for name in ("fp32", "int8", "int4")} | {("target", "bf16"): graph}
    assert graph_key(graphs, block(weights, "assistant")) == ("assistant", kind)


def test_a_graph_for_each_type_and_no_other_has_its_weights_in_panels() -> None:
    pytest.importorskip("specc_kernels", reason="specc-kernels is not built; pip install ./kernels")
    blocks = [block("bf16"), block("int4"), block("bf16")]
    graphs = quantize_graphs({("target", "fp32"): PreparedGraph(prepared("llama"), (RECORD,))}, blocks)
    variants = pack_graphs(graphs, blocks, rounds=True)
    assert variants.keys() == {("target", "bf16"), ("target", "int4")}
    counts = {kind: operators(variants["target", kind].graph) for kind in ("bf16", "int4")}
    assert counts["bf16"]["specc.panel_linear"] == counts["int4"]["specc.panel_quantized_linear"] > 0
    assert graph_key(variants, block("bf16")) == ("target", "bf16")
    assert [record.name.partition("(")[0] for record in variants["target", "int4"].passes] == [
        "Prepared",
        "QuantizeLinears",
        "PackPanels",
    ]


def test_a_model_is_quantised_to_the_types_of_its_own_blocks() -> None:
    target, assistant = (PreparedGraph(prepared("llama"), (RECORD,)) for _ in range(2))
    graphs = {("target", "fp32"): target, ("assistant", "fp32"): assistant}
    blocks = [block("fp32"), block("int4", "assistant"), block("bf16"), block("int4", "assistant")]
    variants = quantize_graphs(graphs, blocks)
    assert variants.keys() == graphs.keys() | {("assistant", "int4")}
    copy = variants["assistant", "int4"]
    assert operators(copy.graph)["specc.quantized_linear"] > 0
    assert "specc.quantized_linear" not in operators(assistant.graph)
    assert copy.passes[0] == RECORD and "bits=4" in copy.passes[1].name and len(copy.passes) == 2


def test_a_prepared_graph_keeps_the_records_of_its_passes(tmp_path: Path) -> None:
    result = prepare(model("llama"), 64, tmp_path / "dump")
    assert operators(result.graph) == operators(prepared("llama"))
    assert len(result.passes) == len(list((tmp_path / "dump").glob("*.py"))) > 5
