"""Graphs in which rounding to 8 bits amplifies last bits that depend on the width, and others."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import onnx_ir as ir
import pytest

from specc.backends.amplified_rounding import graph_amplifies_rounding, target_amplifies_rounding

FLOAT = ir.TensorType(ir.DataType.FLOAT)
SPECC, ORT = "specc", "com.microsoft"
NUMBERS = count()

pytestmark = pytest.mark.torch


def value(*shape: int) -> ir.Value:
    return ir.Value(name=f"input_{next(NUMBERS)}", type=FLOAT, shape=ir.Shape(shape))


def graph(*nodes: ir.Node) -> ir.Graph:
    return ir.Graph([], [], nodes=nodes, opset_imports={"": 18}, name="g")


def linear(x: ir.Value) -> ir.Node:
    return ir.node("LinearNBits", [x, value(1, 1, 16, 64), value(1, 1, 32)], domain=SPECC)


def network(x: ir.Value, *, few_bits: bool) -> ir.Node:
    scales = value(1, 1, 32) if few_bits else None
    return ir.node("GatedMLP", [x, None, None, value(1), scales], domain=SPECC)


def attention(x: ir.Value, domain: str = ORT) -> ir.Node:
    name = "GroupQueryAttention" if domain == ORT else "TreeAttention"
    return ir.node(name, [x, value(1), value(1)], domain=domain)


def four_bits(x: ir.Value, level: int) -> ir.Node:
    return ir.node("MatMulNBits", [x, value(4, 4), value(4)], {"accuracy_level": level}, domain=ORT)


def test_rounding_behind_an_operator_whose_bits_depend_on_the_width_amplifies_them() -> None:
    first = linear(value(1, 4))
    middle = attention(first.outputs[0])
    norm = ir.node("Add", [middle.outputs[0], value(4)])
    assert graph_amplifies_rounding(graph(first, middle, norm, linear(norm.outputs[0])))
    middle = attention(value(1, 4))
    assert graph_amplifies_rounding(graph(middle, network(middle.outputs[0], few_bits=True)))
    for name in ("MatMul", "Gemm"):
        expert = ir.node(name, [value(1, 4), value(4, 4)])
        assert graph_amplifies_rounding(graph(expert, linear(expert.outputs[0])))


def test_products_and_attention_of_specc_kernels_amplify_nothing() -> None:
    first = linear(value(1, 4))
    middle = attention(first.outputs[0], SPECC)
    assert not graph_amplifies_rounding(graph(first, middle, linear(middle.outputs[0])))


def test_without_rounding_behind_it_a_last_bit_stays_one() -> None:
    first = linear(value(1, 4))
    head = ir.node("MatMul", [first.outputs[0], value(4, 4)])
    assert not graph_amplifies_rounding(graph(first, head)), "the product comes last"
    middle = attention(value(1, 4))
    assert not graph_amplifies_rounding(graph(middle, network(middle.outputs[0], few_bits=False)))


def test_a_product_over_one_number_has_no_sum_to_round() -> None:
    angles = ir.node("MatMul", [value(4, 1), value(1, 8)])
    assert not graph_amplifies_rounding(graph(angles, linear(angles.outputs[0])))


@pytest.mark.parametrize(("name", "domain"), [("Gemm", ""), ("FusedMatMul", ORT)])
def test_a_product_with_a_turned_matrix_sums_over_its_last_axis(name: str, domain: str) -> None:
    """Such as the gate of a shared expert, which has one column."""
    for columns, k, amplifies in ((1, 64, True), (64, 1, False)):
        product = ir.node(name, [value(8, k), value(columns, k)], {"transB": 1}, domain=domain)
        assert graph_amplifies_rounding(graph(product, linear(product.outputs[0]))) is amplifies


def mask(parents: ir.Value, eye: np.ndarray) -> list[ir.Node]:
    """Return the nodes that make a tree's mask of its parents: a product of zeros and ones."""
    columns = ir.Value(name="columns", const_value=ir.tensor(np.arange(4)))
    ones = ir.Value(name="eye", const_value=ir.tensor(eye))
    equal = ir.node("Equal", [parents, columns])
    cast_ = ir.node("Cast", [equal.outputs[0]], {"to": ir.DataType.FLOAT})
    edges = ir.node("Add", [cast_.outputs[0], ones])
    squared = ir.node("MatMul", [edges.outputs[0], edges.outputs[0]])
    result = ir.node("Greater", [squared.outputs[0], ones])
    return [equal, cast_, edges, squared, result]


def test_products_of_whole_numbers_are_exact() -> None:
    nodes = mask(value(4, 1), np.eye(4, dtype=np.float32))
    assert not graph_amplifies_rounding(graph(*nodes, linear(nodes[-1].outputs[0])))
    nodes = mask(value(4, 1), np.eye(4, dtype=np.float32) / 3)
    assert graph_amplifies_rounding(graph(*nodes, linear(nodes[-1].outputs[0]))), "fractions have sums to round"
    first = attention(value(4, 1))
    nodes = mask(first.outputs[0], np.eye(4, dtype=np.float32))
    assert graph_amplifies_rounding(graph(first, *nodes, linear(nodes[-1].outputs[0]))), "they depend on the width"


@pytest.mark.parametrize(("level", "amplifies"), [(4, True), (1, False)])
def test_products_of_onnx_runtime_in_few_bits_amplify_if_they_round_activations(level: int, amplifies: bool) -> None:
    first = four_bits(value(1, 4), level)
    second = four_bits(first.outputs[0], level)
    assert graph_amplifies_rounding(graph(first, second)) is amplifies


def test_the_engines_of_the_target_decide_and_neither_drafts_nor_files_that_are_not_onnx(tmp_path: Path) -> None:
    middle = attention(value(1, 4))
    amplifying = graph(middle, linear(middle.outputs[0]))
    ir.save(ir.Model(amplifying, ir_version=9), tmp_path / "few-bits.onnx")
    ir.save(ir.Model(graph(linear(value(1, 4))), ir_version=9), tmp_path / "exact.onnx")

    def amplifies(**files: str) -> bool:
        engines = [SimpleNamespace(name=name, file=file) for name, file in files.items()]
        recipes = [SimpleNamespace(verify=("decode", "wide"))]
        return target_amplifies_rounding(cast(Any, SimpleNamespace(engines=engines, recipes=recipes)), tmp_path)

    for name in ("decode", "prefill", "wide"):
        assert amplifies(**{name: "few-bits.onnx"}) and not amplifies(**{name: "exact.onnx"})
    assert not amplifies(decode="exact.onnx", draft="few-bits.onnx")
    assert not amplifies(decode="few-bits.pt2"), "only a measurement can tell"
