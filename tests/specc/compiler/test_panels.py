"""Weights in panels: which products and tables are packed, and that their values stay what they were."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from graphs import logits, operators, prepared, truth

from specc import passes
from specc.compiler.panels import PackPanels, is_bf16
from specc.compiler.quantize import BITS, QuantizeLinears
from specc.passes.find import weight

pytestmark = pytest.mark.torch

pytest.importorskip("specc_kernels", reason="specc-kernels is not built; pip install ./kernels")


def dtypes(graph: Any, operator: str) -> set[torch.dtype]:
    """Return the types of the panels that calls of an operator read."""
    matches = [node for node in graph.graph.nodes if str(node.target) == f"specc.{operator}.default"]
    return {weight(graph, node.args[1]).dtype for node in matches}


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi", "gemma2"])
def test_every_product_with_a_weight_reads_panels_and_the_values_stay(family: str) -> None:
    graph = prepared(family)
    before = operators(graph)
    products = before.get("aten.linear", 0) + before.get("aten.addmm", 0)
    (result,) = passes.run([PackPanels()], graph)
    assert result.changed == products == operators(graph)["specc.panel_linear"]
    torch.testing.assert_close(logits(graph), truth(family), atol=1e-4, rtol=1e-4)
    assert dtypes(graph, "panel_linear") == {torch.float32}


@pytest.mark.parametrize("kind", BITS)
def test_quantised_numbers_stay_what_the_quantiser_chose(kind: str) -> None:
    graph = prepared("llama")
    passes.run([QuantizeLinears(BITS[kind])], graph)
    expected = logits(graph)
    passes.run([PackPanels()], graph)
    assert "specc.quantized_linear" not in operators(graph)
    torch.testing.assert_close(logits(graph), expected, atol=1e-5, rtol=1e-5)


def test_a_matrix_stays_fp32_where_bf16_would_round_it_unless_the_user_lets_it() -> None:
    exact, rounded = prepared("llama"), prepared("llama")
    passes.run([PackPanels(bf16=True)], exact)
    passes.run([PackPanels(bf16=True, rounds=True)], rounded)
    assert dtypes(exact, "panel_linear") == {torch.float32} and "aten.embedding" in operators(exact)
    assert dtypes(rounded, "panel_linear") == dtypes(rounded, "panel_embedding") == {torch.bfloat16}
    torch.testing.assert_close(logits(exact), truth("llama"), atol=1e-4, rtol=1e-4)
    difference = (logits(rounded) - truth("llama")).abs().max()
    assert 1e-4 < difference < 0.2  # bf16 has 8 bits


def test_bf16_holds_what_was_stored_in_it_and_little_else() -> None:
    values = torch.tensor([1.0, -0.0, 3.140625, 2.0**-130, float("inf")])
    assert is_bf16(values)
    assert not is_bf16(torch.tensor([1.0, 3.1415]))
    assert not is_bf16(torch.tensor([1.0, 2.0**-9 + 1.0]))
