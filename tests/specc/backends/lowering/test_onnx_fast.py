"""The lowering to contrib operators of ONNX Runtime, pass by pass; tests of the ONNX backend run what comes out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from expecttest import assert_expected_inline
from small_graphs import Function, graph_text, rewrite, small
from torch import Tensor, nn
from torch.fx import GraphModule

from specc.backends.lowering.onnx_fast import FewBits, Linears, Norms, Rotary, SkipNorms, Swish, lowering

pytestmark = pytest.mark.torch

SLOTS = 3


class Weighted(nn.Module):
    """A function of a value and of weights: a matrix, a bias, and the weight of a norm."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = Function(function)
        self.matrix, self.bias = nn.Parameter(torch.ones(6, 4)), nn.Parameter(torch.ones(6))
        self.scale = nn.Parameter(torch.ones(4))

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs, self.matrix, self.bias, self.scale)  # type: ignore[no-any-return]


def graph_of(function: Callable[..., Tensor], *inputs: str) -> GraphModule:
    values = dict.fromkeys(inputs, torch.ones(1, SLOTS, 4))
    return small(Weighted(function), "logits", None, **values)


def test_products() -> None:
    def products(x: Tensor, matrix: Tensor, bias: Tensor, scale: Tensor) -> Tensor:
        return nn.functional.linear(x, matrix, bias) + nn.functional.linear(x, matrix)

    assert_expected_inline(
        rewrite(graph_of(products, "x"), Linears(SLOTS)),
        """\
inputs x
linear_1 = linear(x, self.matrix, self.bias)
linear_2 = linear(x, self.matrix)
add_1 = add(linear_1, linear_2)
return {logits: add_1}
--> Linears(slots=3) changed 2
inputs x
fused_mat_mul_1 = com.microsoft.FusedMatMul(x, self.matrix, transB=1)
add_1 = add(fused_mat_mul_1, self.bias)
fused_mat_mul_2 = com.microsoft.FusedMatMul(x, self.matrix, transB=1)
add_2 = add(add_1, fused_mat_mul_2)
return {logits: add_2}""",
    )


def test_products_with_a_quantised_weight() -> None:
    packed, scales = torch.zeros(6, 2, 16, dtype=torch.uint8), torch.ones(6, 2)

    class Quantised(nn.Module):
        packed: Tensor
        scales: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("packed", packed)
            self.register_buffer("scales", scales)

        def forward(self, x: Tensor) -> Tensor:
            return torch.ops.specc.quantized_linear(x, self.packed, self.scales, 60, 4, 32)  # type: ignore[no-any-return]

    assert_expected_inline(
        rewrite(small(Quantised(), x=torch.ones(1, SLOTS, 60)), FewBits(SLOTS)),
        """\
inputs x
quantized_linear_1 = specc.quantized_linear(x, self.packed, self.scales, 60, 4, 32)
return {logits: quantized_linear_1}
--> FewBits(slots=3) changed 1
inputs x
mat_mul_n_bits_1 = com.microsoft.MatMulNBits(x, self.packed, self.scales, K=60, N=6, bits=4,
    block_size=32, accuracy_level=4)
return {logits: mat_mul_n_bits_1}""",
    )


def summed_norm(x: Tensor, z: Tensor, matrix: Tensor, bias: Tensor, scale: Tensor) -> Tensor:
    total = x + z
    return torch.ops.specc.rms_norm(total, scale, 1e-5) * total  # type: ignore[no-any-return]


def test_a_norm_behind_a_residual_sum() -> None:
    assert_expected_inline(
        rewrite(graph_of(summed_norm, "x", "z"), SkipNorms(SLOTS)),
        """\
inputs x, z
add_1 = add(x, z)
rms_norm_1 = specc.rms_norm(add_1, self.scale, 1e-05)
mul_1 = mul(rms_norm_1, add_1)
return {logits: mul_1}
--> SkipNorms(slots=3) changed 1
inputs x, z
skip_simplified_layer_normalization_1 = com.microsoft.SkipSimplifiedLayerNormalization(x, z,
    self.scale, epsilon=1e-05)
item_1 = skip_simplified_layer_normalization_1[0]
item_2 = skip_simplified_layer_normalization_1[3]
mul_1 = mul(item_1, item_2)
return {logits: mul_1}""",
    )


def with_a_weight(x: Tensor, z: Tensor, matrix: Tensor, bias: Tensor, scale: Tensor) -> Tensor:
    return torch.ops.specc.rms_norm(x + scale, scale, 1e-5)  # type: ignore[no-any-return]


def with_a_number(x: Tensor, z: Tensor, matrix: Tensor, bias: Tensor, scale: Tensor) -> Tensor:
    return torch.ops.specc.rms_norm(x + 1, scale, 1e-5)  # type: ignore[no-any-return]


def of_two_axes(x: Tensor, z: Tensor, matrix: Tensor, bias: Tensor, scale: Tensor) -> Tensor:
    return torch.ops.specc.rms_norm(x[0] + z[0], scale, 1e-5)  # type: ignore[no-any-return]


def of_a_product(x: Tensor, z: Tensor, matrix: Tensor, bias: Tensor, scale: Tensor) -> Tensor:
    return torch.ops.specc.rms_norm(x * z, scale, 1e-5)  # type: ignore[no-any-return]


def of_two_shapes(x: Tensor, z: Tensor, matrix: Tensor, bias: Tensor, scale: Tensor) -> Tensor:
    return torch.ops.specc.rms_norm(x + z[:, :1], scale, 1e-5)  # type: ignore[no-any-return]


def by_a_computed_weight(x: Tensor, z: Tensor, matrix: Tensor, bias: Tensor, scale: Tensor) -> Tensor:
    return torch.ops.specc.rms_norm(x + z, scale + 1, 1e-5)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    "norm", [with_a_weight, with_a_number, of_two_axes, of_a_product, of_two_shapes, by_a_computed_weight]
)
def test_norms_that_the_operator_does_not_take(norm: Callable[..., Tensor]) -> None:
    graph = graph_of(norm, "x", "z")
    before = graph_text(graph)
    assert SkipNorms(SLOTS)(graph) == 0 and graph_text(graph) == before
    assert Norms(SLOTS)(graph) == 1


def test_a_norm_alone() -> None:
    assert_expected_inline(
        rewrite(graph_of(with_a_number, "x", "z"), Norms(SLOTS)),
        """\
inputs x, z
add_1 = add(x, 1)
rms_norm_1 = specc.rms_norm(add_1, self.scale, 1e-05)
return {logits: rms_norm_1}
--> Norms(slots=3, dtype=torch.float32) changed 1
inputs x, z
add_1 = add(x, 1)
simplified_layer_normalization_1 = SimplifiedLayerNormalization(add_1, self.scale, epsilon=1e-05,
    axis=-1, stash_type=1)
return {logits: simplified_layer_normalization_1}""",
    )


def test_silu() -> None:
    graph = graph_of(lambda x, matrix, bias, scale: nn.functional.silu(x), "x")
    assert_expected_inline(
        rewrite(graph, Swish(SLOTS)),
        """\
inputs x
silu_1 = silu(x)
return {logits: silu_1}
--> Swish(slots=3) changed 1
inputs x
quick_gelu_1 = com.microsoft.QuickGelu(x, alpha=1.0)
return {logits: quick_gelu_1}""",
    )


def rotated(size: int, interleaved: bool) -> GraphModule:
    def rotate(x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor) -> Tensor:
        return torch.ops.specc.rotary(x, cos, sin, positions, interleaved)  # type: ignore[no-any-return]

    tables = torch.ones(9, 4)
    x, positions = torch.ones(1, 2, SLOTS, size), torch.arange(SLOTS)[None]
    return small(rotate, x=x, cos=tables, sin=tables, positions=positions)


def test_a_rotary_embedding_of_whole_heads() -> None:
    assert_expected_inline(
        rewrite(rotated(8, True), Rotary(SLOTS)),
        """\
inputs x, cos, sin, positions
rotary_1 = specc.rotary(x, cos, sin, positions, True)
return {logits: rotary_1}
--> Rotary(slots=3) changed 1
inputs x, cos, sin, positions
rotary_embedding_1 = com.microsoft.RotaryEmbedding(x, positions, cos, sin, interleaved=1)
return {logits: rotary_embedding_1}""",
    )


def test_a_rotary_embedding_of_a_part_of_each_head() -> None:
    assert_expected_inline(
        rewrite(rotated(10, False), Rotary(SLOTS)),
        """\
inputs x, cos, sin, positions
rotary_1 = specc.rotary(x, cos, sin, positions, False)
return {logits: rotary_1}
--> Rotary(slots=3) changed 1
inputs x, cos, sin, positions
rotary_embedding_1 = com.microsoft.RotaryEmbedding(x, positions, cos, sin, interleaved=0,
    rotary_embedding_dim=8, num_heads=2)
return {logits: rotary_embedding_1}""",
    )


def test_the_order_of_the_passes() -> None:
    """Norms that stand behind a sum are taken before the others."""
    names = [type(step).__name__ for step in lowering(SLOTS)]
    assert names == ["Rotary", "SkipNorms", "Norms", "Swish", "Linears", "FewBits"]
    assert all(step.optional for step in lowering(SLOTS))
