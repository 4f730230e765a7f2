"""The defaults of a pass, and the text of a miss."""

from __future__ import annotations

import pytest
import torch
from small_graphs import Layers, hidden_states, small
from torch.fx import GraphModule

from specc.passes.find import ATTENTION, calls, placeholder
from specc.passes.protocol import Miss, Pass

pytestmark = pytest.mark.torch


class Nothing(Pass):
    def __call__(self, graph: GraphModule) -> int:
        return 0


def test_a_pass_must_find_something_and_knows_no_near_miss_unless_it_says_otherwise() -> None:
    step = Nothing()
    assert not step.optional and step.nearest_miss(small(lambda x: x * 2, x=torch.ones(1))) is None


def test_a_miss_names_its_node_the_innermost_module_and_the_reason() -> None:
    graph = small(Layers(), x=hidden_states())
    (attention, _), x = calls(graph, ATTENTION), placeholder(graph, "x")
    assert str(Miss(attention, "is odd")) == "attention in model.layers.0.self_attn is odd"
    assert str(Miss(x, "is odd")) == "x is odd"
