"""An engine says which version of ONNX Runtime it needs, by what its nodes use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx_ir as ir
import pytest

from specc.backends.onnx_needs import needs

pytestmark = pytest.mark.torch

ATTENTION = "com.microsoft::GroupQueryAttention"
CHAIN = 9  # Inputs of the operator for a chain of slots.


def model(*nodes: ir.Node, opset: int = 18) -> ir.Model:
    """Return a model of these nodes."""
    graph = ir.Graph([], [], nodes=nodes, opset_imports={"": opset, "com.microsoft": 1})
    return ir.Model(graph, ir_version=9)


def node(name: str, inputs: list[ir.Value | None], domain: str = "", **attributes: Any) -> ir.Node:
    """Return a node."""
    return ir.node(name, inputs, attributes, domain=domain)


def attention(inputs: Mapping[int, ir.Value], kv_heads: int = 2) -> ir.Node:
    """Return a GroupQueryAttention with these inputs, by their positions, and those of a chain."""
    values = {position: ir.Value(name=f"input.{position}") for position in range(CHAIN)} | dict(inputs)
    row = [values.get(position) for position in range(max(values) + 1)]
    return node("GroupQueryAttention", row, "com.microsoft", kv_num_heads=kv_heads)


def reshaped(shape: ir.Node) -> ir.Value:
    """Return a value that is reshaped to the output of `shape`."""
    return node("Reshape", [ir.Value(name="x"), shape.outputs[0]]).outputs[0]


CONSTANT = node("Constant", [], value_ints=[1, 2])
OPEN = node("Concat", [ir.Value(name="a")], axis=0)
X = ir.Value(name="x")


@pytest.mark.parametrize(
    ("nodes", "version"),
    [
        ([], "1.20"),
        ([attention({})], "1.20"),
        ([attention({9: X})], "1.22"),
        ([attention({10: X})], "1.22"),
        ([attention({11: X})], "1.23"),
        ([attention({1: reshaped(OPEN)})], "1.20"),
        ([attention({1: reshaped(OPEN)}, kv_heads=1)], "1.31"),
        ([attention({1: reshaped(CONSTANT)}, kv_heads=1)], "1.20"),
        ([attention({11: X}), attention({9: X})], "1.23"),
        ([node("MatMulNBits", [X], "com.microsoft", bits=4)], "1.20"),
        ([node("MatMulNBits", [X], "com.microsoft", bits=8)], "1.22"),
    ],
)
def test_the_newest_node_decides(nodes: list[ir.Node], version: str) -> None:
    result = needs(model(*nodes))
    assert result["onnxruntime"] == version
    for one in nodes:
        assert result[f"com.microsoft::{one.op_type}"] == version


def test_operators_of_the_standard_are_not_listed() -> None:
    assert needs(model(node("MatMul", [X, X]), opset=24)) == {"onnxruntime": "1.25"}


def test_operators_of_specc_kernels_have_its_version() -> None:
    result = needs(model(node("LinearBF16", [X, X], "specc")))
    assert result.keys() == {"onnxruntime", "specc::LinearBF16"} and result["onnxruntime"] == "1.20"
