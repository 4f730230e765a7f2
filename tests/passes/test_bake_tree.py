"""BakeTree: the mask and the depths of a tree as constants."""

from __future__ import annotations

import pytest
import torch
from blocks import IDS, TREE, along_paths, build, prefilled, run
from expecttest import assert_expected_inline
from graphs import EIGHT, tokens
from small_graphs import rewrite, small
from torch import Tensor

from specc.passes.bake_tree import BakeTree
from specc.passes.find import placeholder
from specc.runtime.block import Block
from specc.runtime.errors import PassError
from specc.runtime.tree import Tree

pytestmark = pytest.mark.torch

BRANCHES = Tree((-1, 0, 0))


def visible_depths(x: Tensor, mask: Tensor, depth: Tensor) -> Tensor:
    return x + (mask * depth).sum(-1)


def test_the_inputs_become_constants_of_the_tree() -> None:
    mask, depth = torch.ones(3, 3, dtype=torch.bool), torch.arange(3)
    graph = small(visible_depths, x=torch.zeros(3), mask=mask, depth=depth)
    assert_expected_inline(
        rewrite(graph, BakeTree(BRANCHES)),
        """\
inputs x, mask, depth
mul_1 = mul(mask, depth)
sum_1 = sum(mul_1, [-1])
add_1 = add(x, sum_1)
return {logits: add_1}
--> BakeTree(tree=Tree(parents=(-1, 0, 0))) changed 2
inputs x
mul_1 = mul(self.tree_mask, self.tree_depth)
sum_1 = sum(mul_1, [-1])
add_1 = add(x, sum_1)
return {logits: add_1}""",
    )
    assert graph.get_buffer("tree_mask").tolist() == [[True, False, False], [True, True, False], [True, False, True]]
    assert graph.get_buffer("tree_depth").tolist() == [0, 1, 1]
    assert graph(torch.zeros(3))["logits"].tolist() == [0, 1, 1]


def test_a_graph_without_these_inputs_is_refused() -> None:
    graph = small(lambda x: x * 2, x=torch.zeros(3))
    with pytest.raises(PassError, match="the graph has no input 'mask'"):
        BakeTree(BRANCHES)(graph)
    assert placeholder(graph, "x").name == "x"


@pytest.mark.parametrize("family", EIGHT)
def test_a_baked_tree_runs_every_path_at_once(family: str) -> None:
    outputs = run(build(family, Block(TREE)), IDS, prefilled(family), tokens().shape[1])
    torch.testing.assert_close(outputs["logits"][0], along_paths(family), atol=1e-4, rtol=1e-4)
    assert torch.equal(outputs["ids"], outputs["logits"].argmax(-1))
