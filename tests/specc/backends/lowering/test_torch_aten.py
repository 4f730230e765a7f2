"""The lowering to torch's operators: its graphs run in torch, so they are compared with what they mean."""

from __future__ import annotations

import pytest
import torch
from blocks import CAPACITY, TREE
from expecttest import assert_expected_inline
from graphs import prepared
from small_graphs import free, rewrite, small
from torch import Tensor
from torch.fx import GraphModule

from specc import passes
from specc.backends.lowering.torch_aten import Attend, Norms, Turns, lowering
from specc.passes.find import constant, outputs, placeholder
from specc.runtime.block import Block, Frontier, Parents
from specc.runtime.tree import Tree

pytestmark = pytest.mark.torch

SLOTS = 3


def attention() -> GraphModule:
    """Return attention of four heads over two heads of keys, under a chain's mask."""

    def attend(
        query: Tensor,
        key: Tensor,
        past_key: Tensor,
        past_value: Tensor,
        past_len: Tensor,
        mask: Tensor,
        positions: Tensor,
    ) -> Tensor:
        values = query, key, key, past_key, past_value, past_len, mask, positions, None
        out: Tensor = torch.ops.specc.cached_attention(*values, 0.5, 0, 0.0, 0)[0]
        return out

    cache = torch.zeros(1, 2, 9, 4)
    graph = small(
        attend,
        query=torch.zeros(1, 4, SLOTS, 4),
        key=torch.zeros(1, 2, SLOTS, 4),
        past_key=cache,
        past_value=cache,
        past_len=torch.zeros(1, dtype=torch.long),
        mask=torch.ones(SLOTS, SLOTS, dtype=torch.bool),
        positions=torch.arange(SLOTS)[None],
    )
    chain = constant(graph, "tree_mask", torch.from_numpy(Tree.chain(SLOTS).mask.copy()))
    placeholder(graph, "mask").replace_all_uses_with(chain)
    return graph


def test_a_cache_is_written_where_it_lies() -> None:
    assert_expected_inline(
        rewrite(attention(), Attend(SLOTS)),
        """\
inputs query, key, past_key, past_value, past_len, mask, positions
cached_attention_1 = specc.cached_attention(query, key, key, past_key, past_value, past_len,
    self.tree_mask, positions, None, 0.5, 0, 0.0, 0)
item_1 = cached_attention_1[0]
return {logits: item_1}
--> Attend(slots=3, in_place=True) changed 1
inputs query, key, past_key, past_value, past_len, mask, positions
add_1 = add(past_len, self.slots)
transpose_1 = transpose(positions, 0, 1)
le_1 = le(self.rows, transpose_1)
view_1 = view(le_1, [1, 1, 3, 9])
index_copy_1 = index_copy_(past_key, 2, add_1, key)
index_copy_2 = index_copy_(past_value, 2, add_1, key)
reshape_1 = reshape(query, [1, 2, 6, 4])
repeat_1 = repeat(view_1, [1, 1, 2, 1])
scaled_dot_product_attention_1 = scaled_dot_product_attention(reshape_1, index_copy_1, index_copy_2,
    repeat_1, 0.0, False, scale=0.5)
reshape_2 = reshape(scaled_dot_product_attention_1, [1, 4, 3, 4])
return {logits: reshape_2}""",
    )


def test_a_cache_that_is_only_read() -> None:
    assert_expected_inline(
        rewrite(attention(), Attend(SLOTS, in_place=False)),
        """\
inputs query, key, past_key, past_value, past_len, mask, positions
cached_attention_1 = specc.cached_attention(query, key, key, past_key, past_value, past_len,
    self.tree_mask, positions, None, 0.5, 0, 0.0, 0)
item_1 = cached_attention_1[0]
return {logits: item_1}
--> Attend(slots=3, in_place=False) changed 1
inputs query, key, past_key, past_value, past_len, mask, positions
add_1 = add(past_len, self.slots)
transpose_1 = transpose(positions, 0, 1)
le_1 = le(self.rows, transpose_1)
view_1 = view(le_1, [1, 1, 3, 9])
cat_1 = cat([past_key, key], 2)
cat_2 = cat([past_value, key], 2)
lt_1 = lt(self.cached, past_len)
logical_and_1 = logical_and(view_1, lt_1)
index_select_1 = index_select(view_1, 3, add_1)
cat_3 = cat([logical_and_1, index_select_1], 3)
reshape_1 = reshape(query, [1, 2, 6, 4])
repeat_1 = repeat(cat_3, [1, 1, 2, 1])
scaled_dot_product_attention_1 = scaled_dot_product_attention(reshape_1, cat_1, cat_2, repeat_1,
    0.0, False, scale=0.5)
reshape_2 = reshape(scaled_dot_product_attention_1, [1, 4, 3, 4])
return {logits: reshape_2, rows.0.key: key, rows.0.value: key}""",
    )


def rotated(size: int, interleaved: bool) -> GraphModule:
    def rotate(x: Tensor, cos: Tensor, sin: Tensor, positions: Tensor) -> Tensor:
        return torch.ops.specc.rotary(x, cos, sin, positions, interleaved)  # type: ignore[no-any-return]

    angles = torch.arange(36.0).reshape(9, 4)
    x, positions = torch.ones(1, 2, SLOTS, size), torch.arange(SLOTS)[None]
    return small(rotate, x=x, cos=angles, sin=angles, positions=positions)


def test_a_rotary_embedding() -> None:
    assert_expected_inline(
        rewrite(rotated(8, False), Turns()),
        """\
inputs x, cos, sin, positions
rotary_1 = specc.rotary(x, cos, sin, positions, False)
return {logits: rotary_1}
--> Turns() changed 1
inputs x, cos, sin, positions
squeeze_1 = squeeze(positions, [0])
index_select_1 = index_select(cos, 0, squeeze_1)
index_select_2 = index_select(sin, 0, squeeze_1)
slice_1 = slice(x, 3, 0, 4, 1)
slice_2 = slice(x, 3, 4, 8, 1)
mul_1 = mul(slice_1, index_select_1)
mul_2 = mul(slice_2, index_select_2)
sub_1 = sub(mul_1, mul_2)
mul_3 = mul(slice_2, index_select_1)
mul_4 = mul(slice_1, index_select_2)
add_1 = add(mul_3, mul_4)
cat_1 = cat([sub_1, add_1], 3)
return {logits: cat_1}""",
    )


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("size", [8, 11])
def test_a_rotary_embedding_keeps_its_value(size: int, interleaved: bool) -> None:
    graph, meaning = rotated(size, interleaved), rotated(size, interleaved)
    passes.run([Turns()], graph)
    random = torch.Generator().manual_seed(0)
    x, cos, sin = (torch.randn(s, generator=random) for s in ((1, 2, SLOTS, size), (9, 4), (9, 4)))
    positions = torch.tensor([[8, 0, 3]])
    torch.testing.assert_close(graph(x, cos, sin, positions)["logits"], meaning(x, cos, sin, positions)["logits"])


def test_calls_of_one_table_share_its_rows() -> None:
    def twice(x: Tensor, cos: Tensor, positions: Tensor) -> Tensor:
        once = torch.ops.specc.rotary(x, cos, cos, positions, False)
        return torch.ops.specc.rotary(once, cos, cos, positions, False)  # type: ignore[no-any-return]

    graph = small(twice, x=torch.ones(1, 2, SLOTS, 8), cos=torch.ones(9, 4), positions=torch.arange(SLOTS)[None])
    assert Turns()(graph) == 2
    assert sum("index_select" in str(node.target) for node in graph.graph.nodes) == 2


def test_a_norm() -> None:
    graph = small(lambda x, w: torch.ops.specc.rms_norm(x, w, 1e-5), x=torch.ones(1, SLOTS, 4), w=torch.ones(4))
    assert_expected_inline(
        rewrite(graph, Norms()),
        """\
inputs x, w
rms_norm_1 = specc.rms_norm(x, w, 1e-05)
return {logits: rms_norm_1}
--> Norms() changed 1
inputs x, w
rms_norm_1 = rms_norm(x, [4], w, 1e-05)
return {logits: rms_norm_1}""",
    )


BLOCKS = {
    "chain": Block(Tree.chain(4)),
    "tree": Block(TREE),
    "parents": Block(Parents(8)),
    "grown": Block(Frontier(3, 9)),
}


def inputs_of(graph: GraphModule, block: Block, past: int) -> list[Tensor]:
    """Return random inputs for a block over `past` rows."""
    random = torch.Generator().manual_seed(0)
    by_name = {
        "input_ids": torch.randint(0, 120, (1, block.slots), generator=random),
        "past_len": torch.tensor([past]),
        "parents": torch.tensor(TREE.parents),
        "depth": torch.tensor([0, 1, 1]),
    }
    if isinstance(block.topology, Frontier):
        mask = torch.ones(block.slots, block.topology.span, dtype=torch.bool)
        mask[:, -3:] = torch.tensor([[1, 0, 0], [1, 1, 0], [1, 0, 1]])
        by_name["mask"] = mask
    values = []
    for node in graph.graph.find_nodes(op="placeholder"):
        shape = node.meta["val"].shape
        values.append(by_name[node.name] if node.name in by_name else torch.randn(shape, generator=random))
    return values


@pytest.mark.parametrize("name", BLOCKS)
@pytest.mark.parametrize("in_place", [True, False], ids=["in place", "read only"])
@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_oss"])
def test_a_lowered_block_says_what_the_block_means(family: str, in_place: bool, name: str) -> None:
    """In place, the caches that come in hold the new rows afterwards; else the rows are outputs."""
    block, past = BLOCKS[name], 11
    graph = prepared(family)
    passes.run(passes.pipeline(block, CAPACITY), graph)
    meaning = free(graph)
    passes.run(lowering(block.slots, in_place), graph)
    assert not any(name.startswith("present.") for name in outputs(graph))
    values = inputs_of(meaning, block, past)
    copies = [value.clone() for value in values]
    with torch.no_grad():
        expected, result = meaning(*values), graph(*copies)
    torch.testing.assert_close(result["logits"], expected["logits"], atol=2e-5, rtol=2e-5)
    names = [name for name in expected if name.startswith("present.")]
    by_input = dict(zip((n.name for n in graph.graph.find_nodes(op="placeholder")), copies, strict=True))
    assert names and len([n for n in result if n.startswith("rows.")]) == (0 if in_place else len(names))
    for present in names:
        if in_place:
            cache = by_input[present.replace("present.", "past_key_values_").replace(".", "_")]
            torch.testing.assert_close(cache, expected[present])
        else:
            rows = result[present.replace("present.", "rows.")]
            torch.testing.assert_close(rows, expected[present][:, :, past : past + block.slots])
