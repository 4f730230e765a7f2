"""Masks over a cache, against the meaning of cached attention; and attention that is written out."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from expecttest import assert_expected_inline
from hypothesis import given, settings
from hypothesis import strategies as st
from small_graphs import free, graph_text, small
from torch import Tensor
from torch.fx import GraphModule

from specc.backends.lowering.masks import Biases, Masks, is_causal, written_out
from specc.passes.arguments import CachedAttentionCall
from specc.passes.find import CACHED, calls, constant, outputs, placeholder, set_outputs
from specc.runtime.tree import Tree

pytestmark = pytest.mark.torch

CAPACITY = 12
SLOTS = 4
TREE = Tree((-1, 0, 0, 1))


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    past_key: Tensor,
    past_value: Tensor,
    past_len: Tensor,
    mask: Tensor,
    positions: Tensor,
    sinks: Tensor,
    window: int,
    softcap: float,
) -> Tensor:
    out: Tensor = torch.ops.specc.cached_attention(
        query, key, value, past_key, past_value, past_len, mask, positions, sinks, 0.5, window, softcap, 0
    )[0]
    return out


def graph_of(span: int, window: int = 0, softcap: float = 0.0, tree: Tree | None = None) -> GraphModule:
    """Return a graph that is one attention of two heads over one head of keys, whose sinks are an input."""
    query, row, cache = torch.zeros(1, 2, SLOTS, 3), torch.zeros(1, 1, SLOTS, 3), torch.zeros(1, 1, CAPACITY, 3)
    graph = small(
        partial(attend, window=window, softcap=softcap),
        query=query,
        key=row,
        value=row,
        past_key=cache,
        past_value=cache,
        past_len=torch.zeros(1, dtype=torch.long),
        mask=torch.ones(SLOTS, span, dtype=torch.bool),
        positions=torch.arange(SLOTS)[None],
        sinks=torch.zeros(2),
    )
    if tree is not None:
        mask = placeholder(graph, "mask")
        mask.replace_all_uses_with(constant(graph, "tree_mask", torch.from_numpy(tree.mask.copy())))
    return graph


def with_visible(graph: GraphModule) -> GraphModule:
    """Return a graph that gives the mask instead of the output."""
    (node,) = calls(graph, CACHED)
    with graph.graph.inserting_before(node):
        visible = Masks(graph, SLOTS, CAPACITY).visible(CachedAttentionCall.of(node))
    set_outputs(graph, {"visible": visible})
    return free(graph)


def expected(past: int, mask: Tensor, positions: Tensor, window: int) -> Tensor:
    """Return what each slot sees, [slots, rows in use], from the words of `operators.cached_attention`."""
    total, span = past + SLOTS, mask.shape[1]
    rows = torch.arange(total)
    if span == SLOTS:
        rows[past:] = positions[0]
    visible = torch.ones(SLOTS, total, dtype=torch.bool)
    for slot in range(SLOTS):
        for row in range(total):
            governed = row - (total - span)
            visible[slot, row] = governed < 0 or bool(mask[slot, governed])
            if window:
                visible[slot, row] &= int(positions[0, slot]) - int(rows[row]) < window
    return visible


SPANS = {4: 4, 7: 7}
GRAPHS = {(span, window): with_visible(graph_of(span, window)) for span in SPANS for window in (0, 3)}


@given(st.sampled_from(sorted(GRAPHS)), st.integers(0, CAPACITY - SLOTS), st.randoms(use_true_random=False))
@settings(max_examples=60)
def test_a_slot_sees_the_rows_before_the_mask_and_those_that_it_shows(case: tuple[int, int], past: int, rng) -> None:  # type: ignore[no-untyped-def]
    """A mask may be wider than the rows in use: what it says of rows before the first is not asked for."""
    span, window = case
    mask = torch.tensor([[rng.random() < 0.5 for _ in range(span)] for _ in range(SLOTS)])
    positions = torch.tensor([[past + rng.randrange(SLOTS) for _ in range(SLOTS)]])
    q, kv, cache = torch.zeros(1, 2, SLOTS, 3), torch.zeros(1, 1, SLOTS, 3), torch.zeros(1, 1, CAPACITY, 3)
    visible = GRAPHS[case](q, kv, kv, cache, cache, torch.tensor([past]), mask, positions, torch.zeros(2))["visible"]
    assert visible.shape == (1, 1, SLOTS, CAPACITY)
    assert torch.equal(visible[0, 0, :, : past + SLOTS], expected(past, mask, positions, window))


@pytest.mark.parametrize("window", [0, 3])
def test_a_chain_needs_no_table(window: int) -> None:
    chain = Tree.chain(SLOTS)
    graph = with_visible(graph_of(SLOTS, window, tree=chain))
    text = graph_text(graph)
    assert "index_select" not in text and text.count("le(") == 1
    past, mask = 5, torch.from_numpy(chain.mask.copy())
    positions = past + torch.arange(SLOTS)[None]
    q, kv, cache = torch.zeros(1, 2, SLOTS, 3), torch.zeros(1, 1, SLOTS, 3), torch.zeros(1, 1, CAPACITY, 3)
    visible = graph(q, kv, kv, cache, cache, torch.tensor([past]), mask, positions, torch.zeros(2))["visible"]
    assert torch.equal(visible[0, 0, :, : past + SLOTS], expected(past, mask, positions, window))
    assert not visible[0, 0, :, past + SLOTS :].any()


def test_the_mask_of_a_chain_in_the_text() -> None:
    assert_expected_inline(
        graph_text(with_visible(graph_of(SLOTS, 3, tree=Tree.chain(SLOTS)))),
        """\
inputs query, key, value, past_key, past_value, past_len, mask, positions, sinks
transpose_1 = transpose(positions, 0, 1)
le_1 = le(self.rows, transpose_1)
sub_1 = sub(transpose_1, self.rows)
lt_1 = lt(sub_1, 3)
logical_and_1 = logical_and(le_1, lt_1)
view_1 = view(logical_and_1, [1, 1, 4, 12])
return {visible: view_1}""",
    )


def test_the_mask_of_a_tree_under_a_window_in_the_text() -> None:
    assert_expected_inline(
        graph_text(with_visible(graph_of(SLOTS, 3, tree=TREE))),
        """\
inputs query, key, value, past_key, past_value, past_len, mask, positions, sinks
transpose_1 = transpose(positions, 0, 1)
add_1 = add(past_len, 0)
sub_1 = sub(self.rows, add_1)
clamp_1 = clamp(sub_1, 0, 4)
squeeze_1 = squeeze(clamp_1, [0])
cat_1 = cat([self.tree_mask, self.no_slots], 1)
lt_1 = lt(sub_1, 0)
index_select_1 = index_select(cat_1, 1, squeeze_1)
logical_or_1 = logical_or(lt_1, index_select_1)
cat_2 = cat([positions, self.no_position], 1)
index_select_2 = index_select(cat_2, 1, squeeze_1)
where_1 = where(lt_1, self.rows, index_select_2)
sub_2 = sub(transpose_1, where_1)
lt_2 = lt(sub_2, 3)
logical_and_1 = logical_and(logical_or_1, lt_2)
view_1 = view(logical_and_1, [1, 1, 4, 12])
return {visible: view_1}""",
    )


def test_layers_of_one_window_share_a_mask() -> None:
    graph = graph_of(SLOTS, 3)
    (node,) = calls(graph, CACHED)
    call, masks = CachedAttentionCall.of(node), Masks(graph, SLOTS, CAPACITY)
    biases = Biases(graph, SLOTS)
    with graph.graph.inserting_before(node):
        assert masks.visible(call) is masks.visible(call) and biases.bias(call) is biases.bias(call)


@pytest.mark.parametrize(("tree", "causal"), [(Tree.chain(SLOTS), True), (TREE, False), (None, False)])
def test_only_a_constant_chain_is_causal(tree: Tree | None, causal: bool) -> None:
    graph = graph_of(SLOTS, tree=tree)
    (node,) = calls(graph, CACHED)
    assert is_causal(graph, CachedAttentionCall.of(node).mask) is causal


@pytest.mark.parametrize("window", [0, 3])
@pytest.mark.parametrize("span", SPANS)
def test_a_bias_in_the_text(span: int, window: int) -> None:
    """Of a mask for the slots' own rows, and of a wider one; without a window, and with one."""
    graph = graph_of(span, window)
    (node,) = calls(graph, CACHED)
    with graph.graph.inserting_before(node):
        set_outputs(graph, {"bias": Biases(graph, SLOTS).bias(CachedAttentionCall.of(node))})
    text = graph_text(free(graph)).partition("\n")[2]
    assert text == BIASES[span, window]


PLAIN = """\
add_1 = add(past_len, 4)
where_1 = Where(mask, self.visible, self.hidden)
concat_1 = Concat(self.ints_4, add_1, axis=0)
constant_of_shape_1 = ConstantOfShape(concat_1)
concat_2 = Concat(constant_of_shape_1, where_1, axis=1)
neg_1 = neg(add_1)
slice_1 = Slice(concat_2, neg_1, self.ints_2147483648, self.ints_1)
"""
OWN_ROWS = """\
squeeze_1 = squeeze(past_len)
range_1 = Range(self.int_0, squeeze_1, self.int_1)
squeeze_2 = squeeze(positions, [0])
concat_3 = Concat(range_1, squeeze_2, axis=0)
unsqueeze_1 = Unsqueeze(concat_3, self.ints_0)
"""
ALL_ROWS = """\
squeeze_1 = squeeze(add_1)
range_1 = Range(self.int_0, squeeze_1, self.int_1)
unsqueeze_1 = Unsqueeze(range_1, self.ints_0)
"""
FAR = """\
sub_1 = sub(positions, 3)
transpose_1 = transpose(sub_1, 0, 1)
less_or_equal_1 = LessOrEqual(unsqueeze_1, transpose_1)
where_2 = Where(less_or_equal_1, self.hidden, slice_1)
unsqueeze_2 = Unsqueeze(where_2, self.ints_0_1)
return {bias: unsqueeze_2}"""
NEAR = "unsqueeze_1 = Unsqueeze(slice_1, self.ints_0_1)\nreturn {bias: unsqueeze_1}"
BIASES = {
    (4, 0): PLAIN + NEAR,
    (7, 0): PLAIN + NEAR,
    (4, 3): PLAIN + OWN_ROWS + FAR,
    (7, 3): PLAIN + ALL_ROWS + FAR,
}


@pytest.mark.parametrize("softcap", [0.0, 1.5])
def test_attention_that_is_written_out_is_attention(softcap: float) -> None:
    """With sinks, over a cache whose rows are written already."""
    graph = graph_of(SLOTS, 0, softcap, TREE)
    whole = free(graph)
    (node,) = calls(graph, CACHED)
    call = CachedAttentionCall.of(node)
    with graph.graph.inserting_before(node):
        visible = Masks(graph, SLOTS, CAPACITY).visible(call)
        out = written_out(graph, SLOTS, call, call.past_key, call.past_value, CAPACITY, visible)
    set_outputs(graph, {"logits": out})
    random = torch.Generator().manual_seed(0)
    past = 5
    query, sinks = torch.randn(1, 2, SLOTS, 3, generator=random), torch.randn(2, generator=random)
    keys, values = (torch.randn(1, 1, CAPACITY, 3, generator=random) for _ in range(2))
    rows = [cache[:, :, past : past + SLOTS] for cache in (keys, values)]
    positions = past + torch.from_numpy(TREE.depth.copy())[None]
    arguments = query, *rows, keys, values, torch.tensor([past]), torch.ones(4, 4, dtype=torch.bool), positions, sinks
    torch.testing.assert_close(free(graph)(*arguments)["logits"], whole(*arguments)["logits"])


def test_attention_that_is_written_out_in_the_text() -> None:
    graph = graph_of(SLOTS, 0, 1.5, Tree.chain(SLOTS))
    (node,) = calls(graph, CACHED)
    call = CachedAttentionCall.of(node)
    with graph.graph.inserting_before(node):
        visible = placeholder(graph, "mask")
        out = written_out(graph, SLOTS, call, call.past_key, call.past_value, CAPACITY, visible)
    set_outputs(graph, {"out": out})
    assert_expected_inline(
        graph_text(free(graph)),
        """\
inputs query, key, value, past_key, past_value, past_len, mask, positions, sinks
reshape_1 = reshape(query, [1, 1, 8, 3])
transpose_1 = transpose(past_key, 2, 3)
matmul_1 = matmul(reshape_1, transpose_1)
mul_1 = mul(matmul_1, 0.5)
div_1 = div(mul_1, 1.5)
tanh_1 = tanh(div_1)
mul_2 = mul(tanh_1, 1.5)
reshape_2 = reshape(mul_2, [1, 2, 4, 12])
where_1 = where(mask, reshape_2, -10000.0)
view_1 = view(sinks, [1, -1, 1, 1])
expand_1 = expand(view_1, [1, 2, 4, 1])
cat_1 = cat([where_1, expand_1], -1)
softmax_1 = softmax(cat_1, -1)
slice_1 = slice(softmax_1, 3, 0, 12)
reshape_3 = reshape(slice_1, [1, 1, 8, 12])
matmul_2 = matmul(reshape_3, past_value)
reshape_4 = reshape(matmul_2, [1, 2, 4, 3])
return {out: reshape_4}""",
    )
    assert list(outputs(graph)) == ["out"]
