"""The lowering to standard ONNX, pass by pass; tests of the ONNX backend run what comes out."""

from __future__ import annotations

import pytest
import torch
from expecttest import assert_expected_inline
from small_graphs import graph_text, rewrite, small
from torch import Tensor, nn
from torch.fx import GraphModule

from specc.backends.lowering.onnx_portable import Linears, Norms, Rotary, Scatter, lowering
from specc.passes.find import constant, outputs, placeholder
from specc.runtime.tree import Tree

pytestmark = pytest.mark.torch

SLOTS = 3
F16, F32 = torch.float16, torch.float32


def test_products_of_three_axes_and_of_two() -> None:
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 2, bias=False))
    graph = small(layers, x=torch.ones(1, SLOTS, 4))
    assert_expected_inline(
        rewrite(graph, Linears(SLOTS, F32)),
        """\
inputs x
linear_1 = linear(x, self.0.weight, self.0.bias)
linear_2 = linear(linear_1, self.1.weight)
return {logits: linear_2}
--> Linears(slots=3, dtype=torch.float32) changed 2
inputs x
reshape_1 = reshape(x, [-1, 4])
gemm_1 = Gemm(reshape_1, self.0.weight, self.0.bias, transB=1)
reshape_2 = reshape(gemm_1, [1, 3, 6])
reshape_3 = reshape(reshape_2, [-1, 6])
gemm_2 = Gemm(reshape_3, self.1.weight, transB=1)
reshape_4 = reshape(gemm_2, [1, 3, 2])
return {logits: reshape_4}""",
    )
    flat = small(nn.Linear(4, 6), x=torch.ones(SLOTS, 4))
    Linears(SLOTS, F32)(flat)
    flat.graph.eliminate_dead_code()
    assert graph_text(flat).splitlines()[1] == "gemm_1 = Gemm(x, self.weight, self.bias, transB=1)"


def test_a_product_has_its_shape_type_and_module() -> None:
    graph = small(nn.Sequential(nn.Linear(4, 6)), x=torch.ones(1, SLOTS, 4))
    Linears(SLOTS, F16)(graph)
    gemm = next(node for node in graph.graph.nodes if "_symbolic" in str(node.target))
    assert gemm.kwargs["shape"] == [SLOTS, 6] and gemm.args[2] == 10  # onnx's number of FLOAT16
    assert [path for path, _ in gemm.meta["nn_module_stack"].values()][-1] == "model.0"


def test_a_norm() -> None:
    graph = small(lambda x, w: torch.ops.specc.rms_norm(x, w, 1e-5), x=torch.ones(1, SLOTS, 4), w=torch.ones(4))
    assert_expected_inline(
        rewrite(graph, Norms(SLOTS, F16)),
        """\
inputs x, w
rms_norm_1 = specc.rms_norm(x, w, 1e-05)
return {logits: rms_norm_1}
--> Norms(slots=3, dtype=torch.float16) changed 1
inputs x, w
rms_normalization_1 = RMSNormalization(x, w, epsilon=1e-05, axis=-1)
return {logits: rms_normalization_1}""",
    )


@pytest.mark.parametrize(("size", "partial"), [(8, ""), (10, ", rotary_embedding_dim=8")])
def test_a_rotary_embedding_whole_or_in_part(size: int, partial: str) -> None:
    tables, positions = torch.ones(9, 4), torch.arange(SLOTS)[None]
    graph = small(
        lambda x, cos, sin, positions: torch.ops.specc.rotary(x, cos, sin, positions, True),
        x=torch.ones(1, 2, SLOTS, size),
        cos=tables,
        sin=tables,
        positions=positions,
    )
    text = rewrite(graph, Rotary(SLOTS, F32)).splitlines()[-2].replace("\n    ", " ")
    assert text == f"rotary_embedding_1 = RotaryEmbedding(x, cos, sin, positions, interleaved=1{partial})"


def attention(softcap: float = 0.0, layers: int = 1, sinks: bool = False) -> GraphModule:
    """Return layers of attention under one mask, which is a chain's."""

    def attend(
        x: Tensor, past_key: Tensor, past_value: Tensor, past_len: Tensor, mask: Tensor, positions: Tensor, sink: Tensor
    ) -> Tensor:
        for layer in range(layers):
            arguments = x, x, x, past_key, past_value, past_len, mask, positions, sink if sinks else None
            x, keys, values = torch.ops.specc.cached_attention(*arguments, 0.5, 0, softcap, layer)
            x = x + keys[:, :, :1] + values[:, :, :1]
        return x

    cache = torch.zeros(1, 2, 9, 4)
    graph = small(
        attend,
        x=torch.zeros(1, 2, SLOTS, 4),
        past_key=cache,
        past_value=cache,
        past_len=torch.zeros(1, dtype=torch.long),
        mask=torch.ones(SLOTS, SLOTS, dtype=torch.bool),
        positions=torch.arange(SLOTS)[None],
        sink=torch.zeros(2),
    )
    chain = constant(graph, "tree_mask", torch.from_numpy(Tree.chain(SLOTS).mask.copy()))
    placeholder(graph, "mask").replace_all_uses_with(chain)
    return graph


def test_rows_are_written_and_the_whole_cache_is_read_under_a_mask() -> None:
    assert_expected_inline(
        rewrite(attention(), Scatter(SLOTS, F32)),
        """\
inputs x, past_key, past_value, past_len, mask, positions, sink
cached_attention_1 = specc.cached_attention(x, x, x, past_key, past_value, past_len, self.tree_mask,
    positions, None, 0.5, 0, 0.0, 0)
item_1 = cached_attention_1[0]
item_2 = cached_attention_1[1]
item_3 = cached_attention_1[2]
slice_1 = slice(item_2, 2, 0, 1)
add_1 = add(item_1, slice_1)
slice_2 = slice(item_3, 2, 0, 1)
add_2 = add(add_1, slice_2)
return {logits: add_2}
--> Scatter(slots=3, dtype=torch.float32, rows=False) changed 1
inputs x, past_key, past_value, past_len, mask, positions, sink
tensor_scatter_1 = TensorScatter(past_key, x, past_len, axis=-2, mode=linear)
tensor_scatter_2 = TensorScatter(past_value, x, past_len, axis=-2, mode=linear)
transpose_1 = transpose(positions, 0, 1)
le_1 = le(self.rows, transpose_1)
view_1 = view(le_1, [1, 1, 3, 9])
attention_1 = Attention(x, tensor_scatter_1, tensor_scatter_2, view_1, scale=0.5)
slice_1 = slice(tensor_scatter_1, 2, 0, 1)
add_1 = add(attention_1, slice_1)
slice_2 = slice(tensor_scatter_2, 2, 0, 1)
add_2 = add(add_1, slice_2)
return {logits: add_2}""",
    )


def test_layers_share_the_mask() -> None:
    graph = attention(layers=2)
    assert Scatter(SLOTS, F32)(graph) == 2
    text = graph_text(graph)
    assert (text.count(" Attention("), text.count("TensorScatter("), text.count(" le(")) == (2, 4, 1)


@pytest.mark.parametrize(("softcap", "sinks"), [(2.0, False), (0.0, True)])
def test_scores_that_attention_cannot_compute_are_written_out(softcap: float, sinks: bool) -> None:
    graph = attention(softcap, sinks=sinks)
    Scatter(SLOTS, F32)(graph)
    text = graph_text(graph)
    assert " Attention(" not in text and "softmax(" in text and ("tanh(" in text) is bool(softcap)


@pytest.mark.parametrize("rows", [False, True])
def test_the_slots_rows_are_outputs_if_they_are_asked_for(rows: bool) -> None:
    graph = attention(layers=2)
    Scatter(SLOTS, F32, rows)(graph)
    names = [f"rows.{layer}.{kind}" for layer in (0, 1) for kind in ("key", "value")] if rows else []
    assert list(outputs(graph)) == ["logits", *names]


def test_the_order_and_the_values_of_the_passes() -> None:
    assert lowering(SLOTS, F16, rows=True) == [
        Scatter(SLOTS, F16, True),
        Rotary(SLOTS, F16),
        Norms(SLOTS, F16),
        Linears(SLOTS, F16),
    ]
