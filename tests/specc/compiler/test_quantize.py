"""Weights of few bits: what the packed bytes stand for, and which products are rewritten."""

from __future__ import annotations

import pytest
import torch
from graphs import logits, operators, prepared, truth

from specc import passes
from specc.compiler.quantize import BITS, BLOCK_SIZE, QuantizeLinears
from specc.passes import operators as _operators  # noqa: F401
from specc.runtime.errors import PassError

pytestmark = pytest.mark.torch


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("columns", [64, 96])
def test_a_weight_is_its_scale_times_what_is_packed(bits: int, columns: int) -> None:
    matrix = torch.randn(6, columns, generator=torch.Generator().manual_seed(0))
    packed, scales = QuantizeLinears(bits).quantized(matrix)
    back = torch.ops.specc.quantized_linear(torch.eye(columns), packed, scales, columns, bits, BLOCK_SIZE).T
    step = matrix.abs().max() / (1 << bits - 1)
    assert (back - matrix).abs().max() <= step
    assert packed.dtype == torch.uint8 and packed.shape[-1] == BLOCK_SIZE * bits // 8


@pytest.mark.parametrize("family", ["llama", "gpt2", "phi", "gemma2"])
@pytest.mark.parametrize("kind", BITS)
def test_every_product_with_a_weight_is_rewritten(family: str, kind: str) -> None:
    graph = passes.fork(prepared(family))
    before = operators(graph)
    products = before.get("aten.linear", 0) + before.get("aten.addmm", 0)
    (result,) = passes.run([QuantizeLinears(BITS[kind])], graph)
    assert result.changed == products == operators(graph)["specc.quantized_linear"]
    spread = truth(family).std()
    assert (logits(graph) - truth(family)).std() < (0.02 if kind == "int8" else 0.3) * spread


def test_a_model_of_another_type_is_refused() -> None:
    with pytest.raises(PassError, match="float64"):
        QuantizeLinears(4).quantized(torch.ones(4, 32, dtype=torch.float64))
