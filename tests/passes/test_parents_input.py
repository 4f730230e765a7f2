"""ParentsInput: ancestors and depths from a parent vector."""

from __future__ import annotations

import pytest
import torch
from blocks import IDS, TREE, along_paths, build, prefilled, run
from expecttest import assert_expected_inline
from graphs import EIGHT, tokens
from hypothesis import given
from hypothesis import strategies as st
from small_graphs import rewrite, small
from torch import Tensor
from torch.fx import GraphModule

from specc.passes.find import placeholder
from specc.passes.parents_input import ParentsInput
from specc.runtime.block import Block, Parents
from specc.runtime.tree import Tree

pytestmark = pytest.mark.torch


def both(mask: Tensor, depth: Tensor) -> Tensor:
    return torch.cat([mask.long(), depth[:, None]], 1)


def computed(slots: int) -> GraphModule:
    return small(both, mask=torch.ones(slots, slots, dtype=torch.bool), depth=torch.arange(slots))


def test_reach_is_squared_until_the_deepest_path_is_covered() -> None:
    graph = computed(3)
    assert_expected_inline(
        rewrite(graph, ParentsInput(3)),
        """\
inputs mask, depth
to_1 = to(mask, int64)
unsqueeze_1 = unsqueeze(depth, 1)
cat_1 = cat([to_1, unsqueeze_1], 1)
return {logits: cat_1}
--> ParentsInput(slots=3) changed 2
inputs parents
unsqueeze_1 = unsqueeze(parents, 1)
eq_1 = eq(unsqueeze_1, self.slot_columns)
to_copy_1 = _to_copy(eq_1, dtype=float32)
add_1 = add(to_copy_1, self.slot_eye)
matmul_1 = matmul(add_1, add_1)
clamp_1 = clamp(matmul_1, 0, 1)
matmul_2 = matmul(clamp_1, clamp_1)
clamp_2 = clamp(matmul_2, 0, 1)
gt_1 = gt(clamp_2, 0)
sum_1 = sum(clamp_2, [1])
to_copy_2 = _to_copy(sum_1, dtype=int64)
sub_1 = sub(to_copy_2, 1)
to_1 = to(gt_1, int64)
unsqueeze_2 = unsqueeze(sub_1, 1)
cat_1 = cat([to_1, unsqueeze_2], 1)
return {logits: cat_1}""",
    )


def test_the_example_of_the_input_is_a_chain_of_all_slots() -> None:
    graph = computed(3)
    ParentsInput(3)(graph)
    example = placeholder(graph, "parents").meta["val"]
    assert example.dtype == torch.int64 and example.tolist() == list(Tree.chain(3).parents)


@pytest.mark.parametrize(("slots", "squarings"), [(1, 0), (2, 1), (3, 2), (5, 3), (8, 3), (9, 4)])
def test_there_are_as_many_squarings_as_a_chain_needs(slots: int, squarings: int) -> None:
    graph = computed(slots)
    ParentsInput(slots)(graph)
    graph.recompile()
    assert sum("matmul" in str(node.target) for node in graph.graph.nodes) == squarings
    chain = Tree.chain(slots)
    result = graph(torch.tensor(chain.parents))["logits"]
    assert result[:, :-1].bool().equal(torch.from_numpy(chain.mask.copy()))


@given(st.lists(st.integers(0, 9), min_size=9, max_size=9))
def test_mask_and_depth_are_those_of_the_tree(choices: list[int]) -> None:
    tree = Tree((-1, *(choice % (slot + 1) for slot, choice in enumerate(choices))))
    graph = GRAPHS[tree.slots]
    result = graph(torch.tensor(tree.parents))["logits"]
    assert result[:, :-1].bool().equal(torch.from_numpy(tree.mask.copy()))
    assert result[:, -1].tolist() == tree.depth.tolist()


def _lowered(slots: int) -> GraphModule:
    graph = computed(slots)
    ParentsInput(slots)(graph)
    graph.recompile()
    return graph


GRAPHS = {10: _lowered(10)}


@pytest.mark.parametrize("family", EIGHT)
def test_parents_as_an_input_run_every_path_at_once(family: str) -> None:
    parents = torch.tensor(TREE.parents)
    outputs = run(build(family, Block(Parents(TREE.slots))), IDS, prefilled(family), tokens().shape[1], parents=parents)
    torch.testing.assert_close(outputs["logits"][0], along_paths(family), atol=1e-4, rtol=1e-4)
