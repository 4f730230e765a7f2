"""FoldConstants: small values that no input changes."""

from __future__ import annotations

import pytest
import torch
from expecttest import assert_expected_inline
from small_graphs import graph_text, rewrite, small
from torch import Tensor, nn

from specc.passes.fold_constants import FoldConstants

pytestmark = pytest.mark.torch


class Shifted(nn.Module):
    """A scale by weight + 1, and a sum that no product reads."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.arange(float(size)))

    def forward(self, x: Tensor) -> Tensor:
        return x * (self.weight.exp() + 1) + self.weight


def test_what_depends_on_weights_alone_is_computed_once() -> None:
    model, x = Shifted(3), torch.ones(2, 3)
    graph = small(model, x=x)
    assert_expected_inline(
        rewrite(graph, FoldConstants()),
        """\
inputs x
exp_1 = exp(self.weight)
add_1 = add(exp_1, 1)
mul_1 = mul(x, add_1)
add_2 = add(mul_1, self.weight)
return {logits: add_2}
--> FoldConstants() changed 1
inputs x
mul_1 = mul(x, self.folded_0)
add_1 = add(mul_1, self.weight)
return {logits: add_1}""",
    )
    assert torch.equal(graph.get_buffer("folded_0"), torch.arange(3.0).exp() + 1)
    torch.testing.assert_close(graph(x)["logits"], model(x))


@pytest.mark.parametrize(("size", "changed"), [(65_536, 1), (65_537, 0)])
def test_a_large_weight_stays_as_its_checkpoint_has_it(size: int, changed: int) -> None:
    graph = small(Shifted(size), x=torch.ones(1, size))
    assert FoldConstants()(graph) == changed


def test_what_an_input_changes_stays() -> None:
    graph = small(lambda x: (x + 1) * 2, x=torch.ones(2))
    before = graph_text(graph)
    assert FoldConstants()(graph) == 0 and graph_text(graph) == before


def test_values_of_two_places_are_two_constants() -> None:
    class Two(Shifted):
        def forward(self, x: Tensor) -> Tensor:
            return x * (self.weight + 1) - (self.weight + 2)

    graph = small(Two(3), x=torch.ones(2, 3))
    assert FoldConstants()(graph) == 2
    graph.recompile()
    assert [graph.get_buffer(f"folded_{i}").tolist() for i in (0, 1)] == [[1, 2, 3], [2, 3, 4]]
