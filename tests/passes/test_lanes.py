"""Lanes: slots of several sequences, each over a cache of its own."""

from __future__ import annotations

import pytest
import torch
from blocks import IDS, TREE, along_paths, build, prefilled, run
from expecttest import assert_expected_inline
from graphs import EIGHT, tokens
from small_graphs import Layer, rewrite, small
from torch import Tensor, nn
from torch.fx import GraphModule

from specc import passes
from specc.passes.lanes import Lanes
from specc.passes.lower_attention import LowerAttention
from specc.runtime.block import Block, Frontier, Parents
from specc.runtime.tree import Tree

pytestmark = pytest.mark.torch


class Placed(nn.Module):
    """A layer on hidden states to which positions are added."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList([Layer(0)])

    def forward(self, x: Tensor, position_ids: Tensor) -> Tensor:
        return self.layers[0](x + position_ids.view(1, 1, -1, 1) / 10)  # type: ignore[no-any-return]


def lowered() -> GraphModule:
    x = torch.zeros(1, 2, 3, 4)
    graph = small(Placed(), x=x, position_ids=torch.arange(3)[None])
    passes.run([LowerAttention(7)], graph)
    return graph


def test_each_lane_has_its_cache_and_chains_follow_from_the_widths() -> None:
    assert_expected_inline(
        rewrite(lowered(), Lanes(2, Tree.chain(2))),
        """\
inputs x, past_len, mask, depth, past_key_values_0_key, past_key_values_0_value
add_1 = add(past_len, depth)
unsqueeze_1 = unsqueeze(add_1, 0)
view_1 = view(unsqueeze_1, [1, 1, -1, 1])
div_1 = div(view_1, 10)
add_2 = add(x, div_1)
cached_attention_1 = specc.cached_attention(add_2, add_2, add_2, past_key_values_0_key,
    past_key_values_0_value, past_len, mask, unsqueeze_1, None, 0.5, 0, 0.0, 0)
item_1 = cached_attention_1[0]
item_2 = cached_attention_1[1]
item_3 = cached_attention_1[2]
add_3 = add(add_2, item_1)
linear_1 = linear(add_3, self.layers.0.mlp.weight)
add_4 = add(add_3, linear_1)
return {logits: add_4, present.0.key: item_2, present.0.value: item_3}
--> Lanes(lanes=2, topology=Tree(parents=(-1, 0))) changed 1
inputs x, past_len, widths, past_key_values_0_0_key, past_key_values_0_0_value,
    past_key_values_1_0_key, past_key_values_1_0_value
cumsum_1 = cumsum(widths, 0)
unsqueeze_1 = unsqueeze(self.slot_numbers, 1)
ge_1 = ge(unsqueeze_1, cumsum_1)
to_copy_1 = _to_copy(ge_1, dtype=int64)
sum_1 = sum(to_copy_1, [1])
sub_1 = sub(cumsum_1, widths)
sub_2 = sub(past_len, sub_1)
index_select_1 = index_select(sub_2, 0, sum_1)
add_1 = add(index_select_1, self.slot_numbers)
unsqueeze_2 = unsqueeze(add_1, 0)
view_1 = view(unsqueeze_2, [1, 1, -1, 1])
div_1 = div(view_1, 10)
add_2 = add(x, div_1)
lanes_attention_1 = specc.lanes_attention(add_2, add_2, add_2, [past_key_values_0_0_key,
    past_key_values_0_0_value, past_key_values_1_0_key, past_key_values_1_0_value], past_len,
    widths, None, unsqueeze_2, None, 0.5, 0, 0.0, 0)
item_1 = lanes_attention_1[0]
item_2 = lanes_attention_1[1]
item_3 = lanes_attention_1[2]
item_4 = lanes_attention_1[3]
item_5 = lanes_attention_1[4]
add_3 = add(add_2, item_1)
linear_1 = linear(add_3, self.layers.0.mlp.weight)
add_4 = add(add_3, linear_1)
return {logits: add_4, present.0.0.key: item_2, present.0.0.value: item_3, present.1.0.key: item_4,
    present.1.0.value: item_5}""",
    )


def test_a_baked_tree_serves_each_lane() -> None:
    text = rewrite(lowered(), Lanes(2, Tree((-1, 0, 0)))).partition("-->")[2]
    assert_expected_inline(
        text,
        """\
 Lanes(lanes=2, topology=Tree(parents=(-1, 0, 0))) changed 1
inputs x, past_len, mask, depth, widths, past_key_values_0_0_key, past_key_values_0_0_value,
    past_key_values_1_0_key, past_key_values_1_0_value
repeat_1 = repeat(mask, [2, 1])
cumsum_1 = cumsum(widths, 0)
unsqueeze_1 = unsqueeze(self.slot_numbers, 1)
ge_1 = ge(unsqueeze_1, cumsum_1)
to_copy_1 = _to_copy(ge_1, dtype=int64)
sum_1 = sum(to_copy_1, [1])
repeat_2 = repeat(depth, [2])
index_select_1 = index_select(past_len, 0, sum_1)
add_1 = add(index_select_1, repeat_2)
unsqueeze_2 = unsqueeze(add_1, 0)
view_1 = view(unsqueeze_2, [1, 1, -1, 1])
div_1 = div(view_1, 10)
add_2 = add(x, div_1)
lanes_attention_1 = specc.lanes_attention(add_2, add_2, add_2, [past_key_values_0_0_key,
    past_key_values_0_0_value, past_key_values_1_0_key, past_key_values_1_0_value], past_len,
    widths, repeat_1, unsqueeze_2, None, 0.5, 0, 0.0, 0)
item_1 = lanes_attention_1[0]
item_2 = lanes_attention_1[1]
item_3 = lanes_attention_1[2]
item_4 = lanes_attention_1[3]
item_5 = lanes_attention_1[4]
add_3 = add(add_2, item_1)
linear_1 = linear(add_3, self.layers.0.mlp.weight)
add_4 = add(add_3, linear_1)
return {logits: add_4, present.0.0.key: item_2, present.0.0.value: item_3, present.1.0.key: item_4,
    present.1.0.value: item_5}""",
    )


def test_a_frontiers_mask_and_depths_stay_inputs() -> None:
    text = rewrite(lowered(), Lanes(2, Frontier(2, 5))).partition("-->")[2]
    assert "past_len, mask, depth, widths, " in text.replace("\n    ", " ")
    assert "[past_key_values_0_0_key" in text and "past_len, widths, mask, " in text.replace("\n    ", " ")


def test_parents_see_the_slots_of_their_own_lane() -> None:
    graph = lowered()
    text = rewrite(graph, Lanes(2, Parents(3))).partition("-->")[2]
    assert "gather_1 = gather(mask, 1, self.own_columns)" in text
    assert graph.get_buffer("own_columns").tolist() == [[0, 1, 2]] * 3 + [[3, 4, 5]] * 3


def in_lane(lane: int, past: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a cache under the names that it has as that of a lane."""
    start = "past_key_values_"
    return {f"{start}{lane}_{name.removeprefix(start)}": rows for name, rows in past.items()}


@pytest.mark.parametrize("family", EIGHT)
def test_a_lane_computes_what_it_computes_alone(family: str) -> None:
    """Lane 0 is idle, lane 1 goes on behind its prompt, lane 2 begins one, and lane 3 decodes a token."""
    past = prefilled(family)
    ids = torch.arange(20, 32)[None]
    widths, rows = [0, 5, 6, 1], [0, tokens().shape[1], 0, 4]
    graph = build(family, Block(Tree.chain(3), lanes=4))
    caches = in_lane(1, past) | in_lane(3, past)
    outputs = run(graph, ids, caches, *rows, widths=torch.tensor(widths))
    start = 0
    for lane, (width, row) in enumerate(zip(widths, rows, strict=True)):
        if width:
            own = ids[:, start : start + width]
            alone = run(build(family, Block(Tree.chain(width))), own, past if row else {}, row)
            same = outputs["logits"][0, start : start + width]
            torch.testing.assert_close(same, alone["logits"][0], atol=1e-5, rtol=1e-5)
            keys = outputs[f"present.{lane}.1.key"][:, :, : row + width]
            torch.testing.assert_close(keys, alone["present.1.key"][:, :, : row + width], atol=1e-5, rtol=1e-5)
        start += width


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
@pytest.mark.parametrize("topology", [TREE, Parents(TREE.slots), Frontier(TREE.slots, TREE.slots + 4)])
def test_trees_run_in_lanes(family: str, topology: Tree | Parents | Frontier) -> None:
    slots, more = TREE.slots, {}
    if isinstance(topology, Parents):
        more = {"parents": torch.tensor([*TREE.parents, -1, *(parent + slots for parent in TREE.parents[1:])])}
    if isinstance(topology, Frontier):
        mask = torch.cat([torch.ones(slots, 4, dtype=torch.bool), torch.from_numpy(TREE.mask.copy())], 1)
        more = {"mask": mask.repeat(2, 1), "depth": torch.from_numpy(TREE.depth.copy()).repeat(2)}
    graph = build(family, Block(topology, lanes=2))
    ids, rows = torch.cat([IDS + 3, IDS], 1), (4, tokens().shape[1])
    widths = torch.tensor([slots, slots])
    outputs = run(
        graph, ids, in_lane(0, prefilled(family)) | in_lane(1, prefilled(family)), *rows, widths=widths, **more
    )
    torch.testing.assert_close(outputs["logits"][0, slots:], along_paths(family), atol=1e-4, rtol=1e-4)
