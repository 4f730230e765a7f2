"""PadHeads: queries, keys and values of one size."""

from __future__ import annotations

import pytest
import torch
from expecttest import assert_expected_inline
from small_graphs import graph_text, rewrite, small
from torch import Tensor
from torch.fx import GraphModule

from specc import passes
from specc.passes.find import ATTENTION, calls
from specc.passes.pad_heads import PadHeads

pytestmark = pytest.mark.torch


def attend(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return torch.ops.specc.attention(query, key, value, None, 0.5, 0, 0.0, 0) * 2  # type: ignore[no-any-return]


def heads(size: int) -> Tensor:
    return torch.randn(1, 2, 3, size, generator=torch.Generator().manual_seed(size))


def graph_of(size: int, value_size: int) -> GraphModule:
    return small(attend, query=heads(size), key=heads(size), value=heads(value_size))


def test_zeros_fill_each_head_and_the_output_is_cut() -> None:
    graph = graph_of(6, 3)
    assert_expected_inline(
        rewrite(graph, PadHeads(4)),
        """\
inputs query, key, value
attention_1 = specc.attention(query, key, value, None, 0.5, 0, 0.0, 0)
mul_1 = mul(attention_1, 2)
return {logits: mul_1}
--> PadHeads(multiple=4) changed 1
inputs query, key, value
constant_pad_nd_1 = constant_pad_nd(query, [0, 2])
constant_pad_nd_2 = constant_pad_nd(key, [0, 2])
constant_pad_nd_3 = constant_pad_nd(value, [0, 5])
attention_1 = specc.attention(constant_pad_nd_1, constant_pad_nd_2, constant_pad_nd_3, None, 0.5, 0,
    0.0, 0)
slice_1 = slice(attention_1, 3, 0, 3)
mul_1 = mul(slice_1, 2)
return {logits: mul_1}""",
    )
    shapes = [tuple(node.meta["val"].shape) for node in graph.graph.nodes if node.op == "call_function"]
    assert shapes == [(1, 2, 3, size) for size in (8, 8, 8, 8, 3, 3)]
    values = heads(6), heads(6), heads(3)
    torch.testing.assert_close(graph(*values)["logits"], attend(*values))


def test_the_padded_output_has_as_many_heads_as_the_queries() -> None:
    graph = small(attend, query=torch.zeros(1, 4, 3, 6), key=heads(6), value=heads(3))
    PadHeads(4)(graph)
    (attention,) = calls(graph, ATTENTION)
    assert tuple(attention.meta["val"].shape) == (1, 4, 3, 8)


def test_a_head_that_has_the_size_is_not_padded() -> None:
    graph = graph_of(8, 5)
    assert PadHeads(8)(graph) == 1
    assert [line for line in graph_text(graph).splitlines() if "pad" in line][:1] == [
        "constant_pad_nd_1 = constant_pad_nd(value, [0, 3])"
    ]


@pytest.mark.parametrize(("multiple", "changed"), [(4, 0), (8, 0), (3, 1), (16, 1)])
def test_heads_of_one_size_that_is_a_multiple_stay(multiple: int, changed: int) -> None:
    (record,) = passes.run([PadHeads(multiple)], graph_of(8, 8))
    assert record.changed == changed
