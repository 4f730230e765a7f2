"""LowerAttention: slots that attend to a cache."""

from __future__ import annotations

import pytest
import torch
from blocks import TREE, build
from expecttest import assert_expected_inline
from graphs import operators
from small_graphs import Layer, rewrite, small
from torch import Tensor, nn
from torch.fx import GraphModule

from specc.passes.find import placeholder
from specc.passes.lower_attention import LowerAttention
from specc.runtime.block import Block
from specc.runtime.errors import PassError

pytestmark = pytest.mark.torch

CAPACITY = 7


class Placed(nn.Module):
    """Layers on hidden states to which positions are added."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor, position_ids: Tensor) -> Tensor:
        x = x + position_ids.view(1, 1, -1, 1) / 10
        for layer in self.layers:
            x = layer(x)
        return x


def lowered(*layers: nn.Module, x: Tensor) -> GraphModule:
    return small(Placed(*layers), x=x, position_ids=torch.arange(x.shape[2])[None])


def test_the_cache_comes_in_and_goes_out() -> None:
    graph = lowered(Layer(0), x=torch.zeros(1, 2, 3, 4))
    assert_expected_inline(
        rewrite(graph, LowerAttention(CAPACITY)),
        """\
inputs x, position_ids
view_1 = view(position_ids, [1, 1, -1, 1])
div_1 = div(view_1, 10)
add_1 = add(x, div_1)
attention_1 = specc.attention(add_1, add_1, add_1, None, 0.5, 0, 0.0, 0)
add_2 = add(add_1, attention_1)
linear_1 = linear(add_2, self.layers.0.mlp.weight)
add_3 = add(add_2, linear_1)
return {logits: add_3}
--> LowerAttention(capacity=7) changed 1
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
return {logits: add_4, present.0.key: item_2, present.0.value: item_3}""",
    )
    shapes = {node.name: tuple(node.meta["val"].shape) for node in graph.graph.find_nodes(op="placeholder")}
    assert shapes["past_len"] == (1,) and shapes["mask"] == (2, 2) and shapes["depth"] == (2,)
    assert shapes["past_key_values_0_key"] == shapes["past_key_values_0_value"] == (1, 2, CAPACITY, 4)
    dtypes = [placeholder(graph, name).meta["val"].dtype for name in ("past_len", "mask", "depth")]
    assert dtypes == [torch.int64, torch.bool, torch.int64]


@torch.no_grad()
def test_two_steps_over_the_cache_are_one_run_over_the_sequence() -> None:
    x = torch.randn(1, 2, 5, 4, generator=torch.Generator().manual_seed(0))
    layers = Layer(0, window=3), Layer(1)
    graph = lowered(*layers, x=x)
    whole = graph(x, torch.arange(5)[None])["logits"]
    assert LowerAttention(CAPACITY)(graph) == 2
    graph.recompile()
    caches = [torch.zeros(1, 2, CAPACITY, 4)] * 4
    parts = []
    for start, end in ((0, 3), (3, 5)):
        count = end - start
        mask, depth = torch.ones(count, count, dtype=torch.bool).tril(), torch.arange(count)
        outputs = graph(x[:, :, start:end], torch.tensor([start]), mask, depth, *caches)
        caches = [outputs[f"present.{layer}.{kind}"] for layer in (0, 1) for kind in ("key", "value")]
        parts.append(outputs["logits"])
    torch.testing.assert_close(torch.cat(parts, 2), whole)


@pytest.mark.parametrize(("window", "expected"), [(CAPACITY - 1, CAPACITY - 1), (CAPACITY, 0), (CAPACITY + 1, 0)])
def test_a_window_that_the_capacity_never_fills_is_dropped(window: int, expected: int) -> None:
    graph = lowered(Layer(0, window), x=torch.zeros(1, 2, 3, 4))
    LowerAttention(CAPACITY)(graph)
    (node,) = (n for n in graph.graph.nodes if "cached_attention" in str(n.target))
    assert node.args[10] == expected


def test_a_layer_that_attends_twice_is_refused() -> None:
    graph = lowered(Layer(0), Layer(0), x=torch.zeros(1, 2, 3, 4))
    with pytest.raises(PassError, match="layer 0 attends twice; specc keeps one cache a layer"):
        LowerAttention(CAPACITY)(graph)


def test_no_attention_of_a_whole_sequence_is_left() -> None:
    counts = operators(build("llama", Block(TREE)))
    assert counts["specc.cached_attention"] == 3 and "specc.attention" not in counts
