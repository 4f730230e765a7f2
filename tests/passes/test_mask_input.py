"""MaskInput: the inputs of a frontier, of a fixed size."""

from __future__ import annotations

import pytest
import torch
from blocks import IDS, TREE, along_paths, build, prefilled, presents, run
from expecttest import assert_expected_inline
from graphs import EIGHT, tokens
from small_graphs import rewrite, small
from torch import Tensor

from specc.passes.find import placeholder
from specc.passes.mask_input import MaskInput
from specc.runtime.block import Block, Frontier

pytestmark = pytest.mark.torch


def visible_depths(mask: Tensor, depth: Tensor) -> Tensor:
    return mask.sum(-1) + depth


def test_the_inputs_stay_and_get_the_frontiers_size() -> None:
    graph = small(visible_depths, mask=torch.ones(2, 2, dtype=torch.bool), depth=torch.arange(2))
    assert_expected_inline(
        rewrite(graph, MaskInput(3, 5)),
        """\
inputs mask, depth
sum_1 = sum(mask, [-1])
add_1 = add(sum_1, depth)
return {logits: add_1}
--> MaskInput(slots=3, span=5) changed 2
inputs mask, depth
sum_1 = sum(mask, [-1])
add_1 = add(sum_1, depth)
return {logits: add_1}""",
    )
    mask, depth = (placeholder(graph, name).meta["val"] for name in ("mask", "depth"))
    assert (tuple(mask.shape), mask.dtype) == ((3, 5), torch.bool)
    assert (tuple(depth.shape), depth.dtype) == ((3,), torch.int64)


@pytest.mark.parametrize("family", EIGHT)
def test_a_frontier_grows_the_same_tree_in_two_calls(family: str) -> None:
    past, start = prefilled(family), tokens().shape[1]
    graph = build(family, Block(Frontier(4, TREE.slots)))
    rows = []
    for first in (0, 4):
        mask = torch.ones(4, TREE.slots, dtype=torch.bool)
        mask[:, 4 - first :] = torch.from_numpy(TREE.mask[first : first + 4, : first + 4].copy())
        depth = torch.from_numpy(TREE.depth[first : first + 4].copy()) - first
        outputs = run(graph, IDS[:, first : first + 4], past, start + first, mask=mask, depth=depth)
        past = presents(outputs)
        rows.append(outputs["logits"][0])
    torch.testing.assert_close(torch.cat(rows), along_paths(family), atol=1e-4, rtol=1e-4)
