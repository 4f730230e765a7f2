"""ExitAfter: the first layers, then the model's own norm and head."""

from __future__ import annotations

import pytest
import torch
from expecttest import assert_expected_inline
from graphs import EIGHT, logits, prepared, truth, without
from small_graphs import Layer, Layers, hidden_states, rewrite, small

from specc import passes
from specc.passes.exit_after import ExitAfter
from specc.passes.find import sublayers
from specc.runtime.errors import PassError

pytestmark = pytest.mark.torch


def test_the_head_reads_the_stream_behind_the_last_layer_that_is_left() -> None:
    model, x = Layers(), hidden_states()
    graph = small(model, x=x)
    assert_expected_inline(
        rewrite(graph, ExitAfter(1)),
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
--> ExitAfter(layers=1) changed 1
inputs x
attention_1 = specc.attention(x, x, x, None, 0.5, 0, 0.0, 0)
add_1 = add(x, attention_1)
linear_1 = linear(add_1, self.layers.0.mlp.weight)
add_2 = add(add_1, linear_1)
linear_2 = linear(add_2, self.head.weight)
return {logits: linear_2}""",
    )
    torch.testing.assert_close(graph(x)["logits"], model.head(model.layers[0](x)))


def test_the_record_counts_the_layers_that_are_gone() -> None:
    graph = small(Layers(Layer(0), Layer(1), Layer(2)), x=hidden_states())
    (record,) = passes.run([ExitAfter(1)], graph)
    assert record.changed == 2


@pytest.mark.parametrize("bad", [0, 3, -1])
def test_an_exit_out_of_range_names_the_layers(bad: int) -> None:
    with pytest.raises(PassError, match=rf"no exit after layer {bad}; the graph has 3 layers: take 1\.\.2"):
        passes.run([ExitAfter(bad)], prepared("llama"))


@pytest.mark.parametrize("family", [*EIGHT, "minicpm3"])
@pytest.mark.parametrize("layer", [1, 2])
def test_an_exit_is_the_model_without_the_layers_after_it(family: str, layer: int) -> None:
    """Nothing of them is left, though what a layer writes in place is used by nobody."""
    graph = prepared(family)
    passes.run([ExitAfter(layer)], graph)
    with without(family, exit_after=layer):
        torch.testing.assert_close(logits(graph), truth(family), atol=1e-4, rtol=1e-4)
    assert list(sublayers(graph)) == [str(i) for i in range(layer)]


@pytest.mark.parametrize("family", EIGHT)
def test_an_exit_would_show(family: str) -> None:
    """The control of the test above."""
    whole = truth(family)
    with without(family, exit_after=2):
        assert not torch.allclose(truth(family), whole, atol=1e-2)
