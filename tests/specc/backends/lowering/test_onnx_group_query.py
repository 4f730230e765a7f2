"""Attention as one node of ONNX Runtime; tests of the ONNX backend run what comes out."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from expecttest import assert_expected_inline
from small_graphs import graph_text, rewrite, small
from torch import Tensor
from torch.fx import GraphModule

from specc.backends.lowering.onnx_group_query import GroupQuery
from specc.passes.find import constant, placeholder
from specc.runtime.tree import Tree

pytestmark = pytest.mark.torch

SLOTS = 3
SIZE = 16
TREE = Tree((-1, 0, 0))
Rotate = Callable[[Tensor, Tensor, Tensor], Tensor]


def plain(x: Tensor, table: Tensor, positions: Tensor) -> Tensor:
    return x


def rotated(x: Tensor, table: Tensor, positions: Tensor) -> Tensor:
    return torch.ops.specc.rotary(x, table, table, positions, True)  # type: ignore[no-any-return]


def graph_of(
    tree: Tree | None,
    turn_query: Rotate = plain,
    turn_key: Rotate = plain,
    *,
    size: int = SIZE,
    pairs: int = 8,
    window: int = 0,
    packed: str = "qkv",
    sinks: bool = False,
    flatten: bool = True,
) -> GraphModule:
    """Return the attention of two heads of queries over one head of keys.

    packed: the heads that are slices of `x`, in its order; the others are of `y`.
    """

    def attend(
        input_ids: Tensor,
        x: Tensor,
        y: Tensor,
        table: Tensor,
        past_key: Tensor,
        past_value: Tensor,
        past_len: Tensor,
        mask: Tensor,
        positions: Tensor,
        sink: Tensor,
    ) -> Tensor:
        heads, start = {}, 0
        for name in packed:
            width = size * (2 if name == "q" else 1)
            heads[name] = x[..., start : start + width]
            start += width
        for name in set("qkv") - set(packed):
            heads[name] = y[..., : size * (2 if name == "q" else 1)]
        q, k, v = (heads[name].view(1, -1, 2 if name == "q" else 1, size).transpose(1, 2) for name in "qkv")
        q, k = turn_query(q, table, positions), turn_key(k, table, positions)
        out, _, _ = torch.ops.specc.cached_attention(
            q, k, v, past_key, past_value, past_len, mask, positions, sink if sinks else None, 0.5, window, 2.0, 0
        )
        return out.transpose(1, 2).reshape(1, -1, 2 * size) * 2 if flatten else out * 2  # type: ignore[no-any-return]

    width = sum(size * (2 if name == "q" else 1) for name in packed)
    cache = torch.zeros(1, 1, 9, size)
    graph = small(
        attend,
        input_ids=torch.zeros(1, SLOTS, dtype=torch.long),
        x=torch.zeros(1, SLOTS, width),
        y=torch.zeros(1, SLOTS, 2 * size),
        table=torch.zeros(9, pairs),
        past_key=cache,
        past_value=cache,
        past_len=torch.zeros(1, dtype=torch.long),
        mask=torch.ones(SLOTS, SLOTS, dtype=torch.bool),
        positions=torch.arange(SLOTS)[None],
        sink=torch.zeros(2),
    )
    if tree is not None:
        mask = placeholder(graph, "mask")
        mask.replace_all_uses_with(constant(graph, "tree_mask", torch.from_numpy(tree.mask.copy())))
    return graph


CHAIN = Tree.chain(SLOTS)


def attention_line(graph: GraphModule) -> str:
    """Return the operator's call after the pass."""
    GroupQuery(SLOTS)(graph)
    graph.graph.eliminate_dead_code()
    text = graph_text(graph).replace("\n    ", " ")
    return next(line for line in text.splitlines() if "GroupQueryAttention" in line).partition("Attention(")[2]


def test_a_chain_of_packed_heads_that_turn_is_one_node() -> None:
    assert_expected_inline(
        rewrite(graph_of(CHAIN, rotated, rotated), GroupQuery(SLOTS)),
        """\
inputs input_ids, x, y, table, past_key, past_value, past_len, mask, positions, sink
slice_1 = slice(x, 2, 0, 32)
slice_2 = slice(x, 2, 32, 48)
slice_3 = slice(x, 2, 48, 64)
view_1 = view(slice_1, [1, -1, 2, 16])
transpose_1 = transpose(view_1, 1, 2)
view_2 = view(slice_2, [1, -1, 1, 16])
transpose_2 = transpose(view_2, 1, 2)
view_3 = view(slice_3, [1, -1, 1, 16])
transpose_3 = transpose(view_3, 1, 2)
rotary_1 = specc.rotary(transpose_1, table, table, positions, True)
rotary_2 = specc.rotary(transpose_2, table, table, positions, True)
cached_attention_1 = specc.cached_attention(rotary_1, rotary_2, transpose_3, past_key, past_value,
    past_len, self.tree_mask, positions, None, 0.5, 0, 2.0, 0)
item_1 = cached_attention_1[0]
transpose_4 = transpose(item_1, 1, 2)
reshape_1 = reshape(transpose_4, [1, -1, 32])
mul_1 = mul(reshape_1, 2)
return {logits: mul_1}
--> GroupQuery(slots=3, any_width=False) changed 1
inputs input_ids, x, y, table, past_key, past_value, past_len, mask, positions, sink
add_1 = add(past_len, 3)
cast_1 = Cast(add_1, to=6)
sub_1 = sub(cast_1, 1)
squeeze_1 = squeeze(cast_1)
group_query_attention_1 = com.microsoft.GroupQueryAttention(x, None, None, past_key, past_value,
    sub_1, squeeze_1, table, table, num_heads=2, kv_num_heads=1, scale=0.5, softcap=2.0,
    do_rotary=1, rotary_interleaved=1)
item_1 = group_query_attention_1[0]
mul_1 = mul(item_1, 2)
return {logits: mul_1}""",
    )


def test_a_chain_of_any_width_counts_its_slots() -> None:
    text = rewrite(graph_of(CHAIN), GroupQuery(SLOTS, any_width=True)).partition("-->")[2]
    assert_expected_inline(
        text,
        """\
 GroupQuery(slots=3, any_width=True) changed 1
inputs input_ids, x, y, table, past_key, past_value, past_len, mask, positions, sink
shape_1 = Shape(input_ids, start=1, end=2)
add_1 = add(past_len, shape_1)
cast_1 = Cast(add_1, to=6)
sub_1 = sub(cast_1, 1)
squeeze_1 = squeeze(cast_1)
group_query_attention_1 = com.microsoft.GroupQueryAttention(x, None, None, past_key, past_value,
    sub_1, squeeze_1, num_heads=2, kv_num_heads=1, scale=0.5, softcap=2.0)
item_1 = group_query_attention_1[0]
mul_1 = mul(item_1, 2)
return {logits: mul_1}""",
    )


def test_a_tree_is_a_bias() -> None:
    line = attention_line(graph_of(TREE, rotated, rotated))
    assert line.startswith(
        "x, None, None, past_key, past_value, sub_1, squeeze_1, table, table, positions, unsqueeze_1"
    )


def test_a_window_is_an_attribute_of_a_chain_and_in_the_bias_of_a_tree() -> None:
    assert "local_window_size=4" in attention_line(graph_of(CHAIN, window=4))
    assert "local_window_size" not in attention_line(graph_of(CHAIN))
    assert "local_window_size" not in attention_line(graph_of(TREE, window=4))


def test_sinks_are_the_last_input_behind_those_that_are_left_out() -> None:
    line = attention_line(graph_of(CHAIN, sinks=True))
    assert line.startswith("x, None, None, past_key, past_value, sub_1, squeeze_1, None, None, None, None, sink, ")
    assert attention_line(graph_of(CHAIN)).startswith(
        "x, None, None, past_key, past_value, sub_1, squeeze_1, num_heads"
    )


def test_the_attributes_are_those_of_the_call() -> None:
    line = attention_line(graph_of(CHAIN))
    assert line.endswith("num_heads=2, kv_num_heads=1, scale=0.5, softcap=2.0)")


@pytest.mark.parametrize(
    ("turn_query", "turn_key", "size", "pairs", "inside"),
    [
        (rotated, rotated, 16, 8, True),
        (rotated, rotated, 32, 8, True),
        (rotated, plain, 16, 8, False),
        (plain, rotated, 16, 8, False),
        (rotated, lambda x, table, positions: rotated(x, table + 1, positions), 16, 8, False),
        (rotated, rotated, 24, 8, False),  # heads of sizes that are no multiple of 16
        (rotated, rotated, 16, 4, False),
    ],
)
def test_the_operator_turns_both_or_none(
    turn_query: Rotate, turn_key: Rotate, size: int, pairs: int, inside: bool
) -> None:
    graph = graph_of(CHAIN, turn_query, turn_key, size=size, pairs=pairs)
    assert ("do_rotary=1, rotary_interleaved=1" in attention_line(graph)) is inside
    assert ("specc.rotary" in graph_text(graph)) is not inside


@pytest.mark.parametrize(
    ("packed", "start"),
    [
        ("qkv", "x, None, None, past_key"),
        ("kqv", "slice_2, slice_1, slice_3, past_key"),  # not in the operator's order
        ("qk", "slice_1, slice_2, slice_3, past_key"),  # values are of another value
    ],
)
def test_heads_are_packed_if_they_are_all_of_one_value_in_order(packed: str, start: str) -> None:
    assert attention_line(graph_of(CHAIN, packed=packed)).startswith(start)


def test_an_output_that_is_not_flattened_is_split_into_heads_again() -> None:
    text = rewrite(graph_of(CHAIN, flatten=False), GroupQuery(SLOTS)).partition("-->")[2]
    assert text.splitlines()[-5:] == [
        "item_1 = group_query_attention_1[0]",
        "view_1 = view(item_1, [1, -1, 2, 16])",
        "transpose_1 = transpose(view_1, 1, 2)",
        "mul_1 = mul(transpose_1, 2)",
        "return {logits: mul_1}",
    ]
