"""Graphs traced at their block's shapes, and the names of tensors."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path

import pytest
import torch
from blocks import CAPACITY, build
from safetensors.torch import save_file

from specc.backends.export import examples, export, public, quiet, tensors, traced
from specc.passes.find import placeholder
from specc.runtime.block import Block, Parents
from specc.runtime.engines.mapped_weights import read_header
from specc.runtime.manifest import Tensor
from specc.runtime.tree import Tree

pytestmark = pytest.mark.torch

BLOCK = Block(Parents(5), ("ids", "top_k:2", "logits"))


@pytest.mark.parametrize("family", ["llama", "gpt_oss"])
def test_it_is_what_torch_export_traces(family: str) -> None:
    """The signatures are equal, and so are the values for random inputs."""
    graph = build(family, BLOCK)
    program, expected = export(graph, BLOCK), traced(graph, BLOCK)
    assert program.graph_signature.user_inputs == expected.graph_signature.user_inputs
    assert len(program.graph_signature.user_outputs) == len(expected.graph_signature.user_outputs)
    assert program.state_dict.keys() == {str(n.target) for n in graph.graph.find_nodes(op="get_attr")}
    random = torch.Generator().manual_seed(0)
    values = [
        torch.randn(v.shape, generator=random) if v.is_floating_point() else torch.ones_like(v)
        for v in examples(graph, BLOCK)
    ]
    values[[n.name for n in graph.graph.find_nodes(op="placeholder")].index("parents")] = torch.arange(5) - 1
    with torch.no_grad():
        results = program.module()(*(v.clone() for v in values))
        others = expected.module()(*(v.clone() for v in values)).values()
    for result, other in zip(results, others, strict=True):
        torch.testing.assert_close(result, other)


def test_sizes_are_numbers_and_weights_are_inputs() -> None:
    graph = build("llama", BLOCK)
    program = export(graph, BLOCK)
    values = [node.meta["val"] for node in program.graph.nodes if "val" in node.meta]
    shapes = [size for value in values if isinstance(value, torch.Tensor) for size in value.shape]
    assert shapes and all(isinstance(size, int) for size in shapes)
    assert not [node for node in program.graph.nodes if node.op == "get_attr" or "sym_size" in str(node.target)]
    names = [node.name for node in program.graph.nodes if node.op == "placeholder"]
    kinds = {name.partition("_")[0] for name in names[: len(program.state_dict)]}
    assert kinds == {"p", "b"} and names[len(program.state_dict)] == "input_ids"


def test_an_operator_that_refuses_the_shapes_is_an_error() -> None:
    graph = build("llama", BLOCK)
    placeholder(graph, "parents").meta["val"] = torch.arange(4)
    with pytest.raises(RuntimeError, match="broadcast"):
        export(graph, BLOCK)


def test_examples_have_the_blocks_slots_and_the_graphs_other_shapes() -> None:
    graph = build("llama", BLOCK)
    ids, *others = examples(graph, BLOCK)
    assert ids.shape == (1, 5) and ids.dtype == torch.int64
    assert [v.shape for v in others] == [n.meta["val"].shape for n in graph.graph.find_nodes(op="placeholder")[1:]]


def test_inputs_and_outputs_are_named_and_typed_for_users() -> None:
    graph = build("llama", BLOCK)
    names = {placeholder(graph, "past_len"): "weights.of.something"}
    inputs, outputs = tensors(graph, export(graph, BLOCK), names)
    by_name = {tensor.name: tensor for tensor in (*inputs, *outputs)}
    assert by_name["input_ids"] == Tensor("input_ids", "int64", (1, 5))
    assert by_name["weights.of.something"].shape == (1,) and "past_len" not in by_name
    assert by_name["past_key_values.2.value"] == Tensor("past_key_values.2.value", "float32", (1, 2, CAPACITY, 16))
    assert by_name["top_ids"] == Tensor("top_ids", "int64", (1, 5, 2))
    assert [t.name for t in outputs][:4] == ["ids", "top_ids", "top_logprobs", "logits"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("past_key_values_12_key", "past_key_values.12.key"),
        ("past_len", "past_len"),
        ("input_ids", "input_ids"),
    ],
)
def test_a_cache_is_named_with_points(name: str, expected: str) -> None:
    assert public(name) == expected


def test_the_header_of_a_weights_file_and_where_its_data_begins(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    save_file({"a": torch.tensor([1.5, 2.5])}, file)
    header, start = read_header(file)
    first, end = header["a"]["data_offsets"]
    data = torch.frombuffer(bytearray(file.read_bytes()[start + first : start + end]), dtype=torch.float32)
    assert data.tolist() == [1.5, 2.5]


def test_quiet_silences_prints_warnings_and_logs_and_puts_them_back(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    with warnings.catch_warnings(record=True) as records, quiet():
        print("a print")
        warnings.warn("a warning", stacklevel=1)
        logging.getLogger("torch").warning("a log")
        logging.getLogger("torch").error("an error")
    assert capsys.readouterr().out == "" and not records and caplog.messages == ["an error"]
    print("a print")
    logging.getLogger("torch").warning("a log")
    assert capsys.readouterr().out == "a print\n" and caplog.messages == ["an error", "a log"]


def test_an_error_inside_quiet_is_raised_and_logs_come_back() -> None:
    before = logging.root.manager.disable
    with pytest.raises(ValueError, match="odd"), quiet(logging.CRITICAL):
        raise ValueError("odd")
    assert logging.root.manager.disable == before


def test_a_graph_of_one_slot_is_traced_too() -> None:
    block = Block(Tree.chain(1))
    graph = build("llama", block)
    assert tensors(graph, export(graph, block))[0][0] == Tensor("input_ids", "int64", (1, 1))
