"""ParallelLayers: the attention of a group of layers reads what enters the group."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from expecttest import assert_expected_inline
from graphs import logits, prepared, tokens
from small_graphs import Layer, Layers, ParallelLayer, hidden_states, rewrite, small
from torch.fx import GraphModule, Node

from specc import passes
from specc.passes.find import ATTENTION, MATRICES, calls, nodes
from specc.passes.parallel_layers import ParallelLayers
from specc.runtime.errors import PassError

pytestmark = pytest.mark.torch


def test_attention_of_the_second_layer_reads_what_enters_the_first() -> None:
    model, x = Layers(), hidden_states()
    graph = small(model, x=x)
    assert_expected_inline(
        rewrite(graph, ParallelLayers(2)),
        """\
inputs x
attention_1 = specc.attention(x, x, x, None, 0.5, 0, 0.0, 0)
add_1 = add(x, attention_1)
linear_1 = linear(add_1, self.layers.0.mlp.weight)
add_2 = add(add_1, linear_1)
attention_2 = specc.attention(add_2, add_2, add_2, None, 0.5, 0, 0.0, 1)
add_3 = add(add_2, attention_2)
linear_2 = linear(add_3, self.layers.1.mlp.weight)
add_4 = add(add_3, linear_2)
linear_3 = linear(add_4, self.head.weight)
return {logits: linear_3}
--> ParallelLayers(group=2) changed 1
inputs x
attention_1 = specc.attention(x, x, x, None, 0.5, 0, 0.0, 0)
add_1 = add(x, attention_1)
linear_1 = linear(add_1, self.layers.0.mlp.weight)
add_2 = add(add_1, linear_1)
attention_2 = specc.attention(x, x, x, None, 0.5, 0, 0.0, 1)
add_3 = add(add_2, attention_2)
linear_2 = linear(add_3, self.layers.1.mlp.weight)
add_4 = add(add_3, linear_2)
linear_3 = linear(add_4, self.head.weight)
return {logits: linear_3}""",
    )
    layers: Any = model.layers
    first, second = layers
    middle = first(x)
    stream = middle + second.self_attn(x)
    torch.testing.assert_close(graph(x)["logits"], model.head(stream + second.mlp(stream)))


def test_a_group_ends_where_the_next_begins() -> None:
    model, x = Layers(*(Layer(i) for i in range(3))), hidden_states()
    graph = small(model, x=x)
    (record,) = passes.run([ParallelLayers(2)], graph)
    assert record.changed == 1
    third = calls(graph, ATTENTION)[2]
    assert third.args[0] is not calls(graph, ATTENTION)[0].args[0]


def test_the_mlp_of_a_layer_that_runs_both_at_once_reads_what_it_did() -> None:
    model, x = Layers(ParallelLayer(0), ParallelLayer(1)), hidden_states()
    graph = small(model, x=x)
    passes.run([ParallelLayers(2)], graph)
    layers: Any = model.layers
    first, second = layers
    middle = first(x)
    torch.testing.assert_close(graph(x)["logits"], model.head(middle + second.self_attn(x) + second.mlp(middle)))


def longest_way(graph: GraphModule) -> int:
    """Return how many products and attentions wait for one another at most."""
    lengths: dict[Node, int] = {}
    for node in nodes(graph):
        before = max((lengths[value] for value in node.all_input_nodes), default=0)
        lengths[node] = before + (node.target in (*MATRICES, ATTENTION))
    return max(lengths.values())


@pytest.mark.parametrize("family", ["llama", "phi", "gemma2", "gpt2"])
def test_easyspec_shortens_the_longest_way_through_a_model(family: str) -> None:
    """EasySpec's own test. The first layer's numbers stay, and so the model's shape of outputs; its logits do not."""
    exact, graph = prepared(family), prepared(family)
    passes.run([ParallelLayers(3)], graph)
    assert longest_way(graph) < longest_way(exact)
    before, after = logits(exact), logits(graph)
    assert before.shape == after.shape and tokens().shape[1] == len(after)
    assert not torch.allclose(before, after, atol=1e-3)


@pytest.mark.parametrize("group", [1, 4])
def test_a_group_of_one_layer_or_of_too_many_is_refused(group: int) -> None:
    with pytest.raises(PassError, match=rf"no groups of {group} layers; the graph has 3: take 2 or more"):
        passes.run([ParallelLayers(group)], small(Layers(*(Layer(i) for i in range(3))), x=hidden_states()))
