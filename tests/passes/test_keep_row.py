"""KeepRow: the head on one row."""

from __future__ import annotations

import pytest
import torch
from blocks import build, run
from expecttest import assert_expected_inline
from graphs import EIGHT, SLOTS, tokens, truth
from small_graphs import rewrite, small
from torch import Tensor, nn

from specc.passes.find import outputs as graph_outputs
from specc.passes.find import placeholder
from specc.passes.keep_row import KeepRow
from specc.runtime.block import Block
from specc.runtime.errors import PassError
from specc.runtime.tree import Tree

pytestmark = pytest.mark.torch


class Capped(nn.Module):
    """A norm, a head, and a cap of the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.head = nn.LayerNorm(4), nn.Linear(4, 6)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.head(self.norm(x)) / 3) * 3


def test_the_row_is_selected_before_the_head() -> None:
    torch.manual_seed(0)
    model, x = Capped(), torch.randn(1, 5, 4)
    graph = small(model, x=x)
    assert_expected_inline(
        rewrite(graph, KeepRow()),
        """\
inputs x
layer_norm_1 = layer_norm(x, [4], self.norm.weight, self.norm.bias, 1e-05, False)
linear_1 = linear(layer_norm_1, self.head.weight, self.head.bias)
div_1 = div(linear_1, 3)
tanh_1 = tanh(div_1)
mul_1 = mul(tanh_1, 3)
return {logits: mul_1}
--> KeepRow() changed 1
inputs x, row
layer_norm_1 = layer_norm(x, [4], self.norm.weight, self.norm.bias, 1e-05, False)
index_select_1 = index_select(layer_norm_1, 1, row)
linear_1 = linear(index_select_1, self.head.weight, self.head.bias)
div_1 = div(linear_1, 3)
tanh_1 = tanh(div_1)
mul_1 = mul(tanh_1, 3)
return {logits: mul_1}""",
    )
    torch.testing.assert_close(graph(x, torch.tensor([3]))["logits"], model(x)[:, 3:4])
    row, logits = placeholder(graph, "row").meta["val"], graph_outputs(graph)["logits"]
    assert (tuple(row.shape), row.dtype) == ((1,), torch.int64)
    shapes = [tuple(node.meta["val"].shape) for node in (logits, *logits.all_input_nodes)]
    assert shapes == [(1, 1, 6), (1, 1, 6)]


def test_logits_of_no_single_head_are_refused() -> None:
    graph = small(lambda x: (x + 1) * (x + 2), x=torch.ones(1, 2, 3))
    with pytest.raises(PassError, match="the logits come from mul, and no linear head leads to it"):
        KeepRow()(graph)


@pytest.mark.parametrize("family", EIGHT)
def test_one_row_is_all_that_the_head_runs_on(family: str) -> None:
    graph = build(family, Block(Tree.chain(SLOTS), last_row=True))
    outputs = run(graph, tokens(), {}, 0, row=torch.tensor([7]))
    assert outputs["logits"].shape[:2] == (1, 1)
    torch.testing.assert_close(outputs["logits"][0, 0], truth(family)[7], atol=1e-4, rtol=1e-4)
