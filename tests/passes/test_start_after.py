"""StartAfter: the model's other layers, from the hidden states of the first ones."""

from __future__ import annotations

import pytest
import torch
from blocks import build, prefilled, presents, run
from expecttest import assert_expected_inline
from graphs import prepared, tokens
from small_graphs import Layers, hidden_states, rewrite, small

from specc import passes
from specc.passes.find import sublayers
from specc.passes.start_after import StartAfter
from specc.runtime.block import Block
from specc.runtime.block import Layers as BlockLayers
from specc.runtime.errors import PassError
from specc.runtime.tree import Tree

pytestmark = pytest.mark.torch

NEXT = torch.tensor([[5, 9, 2]])


def test_the_first_layers_become_an_input() -> None:
    model, x = Layers(), hidden_states()
    graph = small(model, x=x)
    assert_expected_inline(
        rewrite(graph, StartAfter(1)),
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
--> StartAfter(layers=1) changed 1
inputs x, hidden
attention_1 = specc.attention(hidden, hidden, hidden, None, 0.5, 0, 0.0, 1)
add_1 = add(hidden, attention_1)
linear_1 = linear(add_1, self.layers.1.mlp.weight)
add_2 = add(add_1, linear_1)
linear_2 = linear(add_2, self.head.weight)
return {logits: linear_2}""",
    )
    torch.testing.assert_close(graph(x, model.layers[0](x))["logits"], model(x))


@pytest.mark.parametrize("family", ["llama", "gemma2", "phi", "gpt2"])
@pytest.mark.parametrize("layer", [1, 2])
def test_kangaroo_s_shallow_half_and_deep_half_are_the_whole_model(family: str, layer: int) -> None:
    """Kangaroo's own test: logits and rows of both halves over one cache are those of a call of the model."""
    topology, past, count = Tree.chain(3), prefilled(family), tokens().shape[1]
    shallow = build(family, Block(topology, ("ids", f"hidden:{layer - 1}"), BlockLayers(exit_after=layer)))
    deep = build(family, Block(topology, layers=BlockLayers(start_after=layer), inputs=("hidden",)))
    whole = run(build(family, Block(topology)), NEXT, past, count)
    first = run(shallow, NEXT, past, count)
    second = run(deep, NEXT, past, count, hidden=first[f"hidden_{layer - 1}"])
    torch.testing.assert_close(second["logits"], whole["logits"], atol=1e-5, rtol=1e-5)
    both = presents(first) | presents(second)
    assert not presents(first).keys() & presents(second).keys()
    assert both.keys() == presents(whole).keys()
    for name, rows in presents(whole).items():
        used = slice(count + 3)
        torch.testing.assert_close(both[name][:, :, used], rows[:, :, used], atol=1e-5, rtol=1e-5)


def test_nothing_of_the_first_layers_is_left() -> None:
    graph = prepared("llama")
    (record,) = passes.run([StartAfter(2)], graph)
    assert record.changed == 2 and list(sublayers(graph)) == ["2"]
    weights = {str(node.target) for node in graph.graph.find_nodes(op="get_attr")}
    assert not any("layers.0." in name or "layers.1." in name for name in weights)


@pytest.mark.parametrize("bad", [0, 3, -1])
def test_a_start_out_of_range_names_the_layers(bad: int) -> None:
    with pytest.raises(PassError, match=rf"no start after layer {bad}; the graph has 3 layers: take 1\.\.2"):
        passes.run([StartAfter(bad)], prepared("llama"))
