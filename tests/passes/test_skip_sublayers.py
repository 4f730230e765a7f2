"""SkipSublayers: a model whose chosen sublayers add nothing to the stream."""

from __future__ import annotations

import pytest
import torch
from expecttest import assert_expected_inline
from graphs import EIGHT, logits, prepared, truth, without
from small_graphs import Layer, Layers, ParallelLayer, hidden_states, rewrite, small

from specc import passes
from specc.passes.find import sublayers
from specc.passes.skip_sublayers import SkipSublayers
from specc.runtime.errors import PassError

pytestmark = pytest.mark.torch


def test_a_skipped_sublayer_adds_nothing() -> None:
    model, x = Layers(), hidden_states()
    graph = small(model, x=x)
    assert_expected_inline(
        rewrite(graph, SkipSublayers(attention=(0,), mlp=(1,))),
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
--> SkipSublayers(attention=(0,), mlp=(1,)) changed 2
inputs x
linear_1 = linear(x, self.layers.0.mlp.weight)
add_1 = add(x, linear_1)
attention_1 = specc.attention(add_1, add_1, add_1, None, 0.5, 0, 0.0, 1)
add_2 = add(add_1, attention_1)
linear_2 = linear(add_2, self.head.weight)
return {logits: linear_2}""",
    )
    y = x + model.layers[0].mlp(x)  # type: ignore[operator]
    y = y + model.layers[1].self_attn(y)  # type: ignore[operator]
    torch.testing.assert_close(graph(x)["logits"], model.head(y))


def test_a_parallel_layer_that_is_skipped_whole_hands_its_input_on() -> None:
    model, x = Layers(ParallelLayer(0), Layer(1)), hidden_states()
    graph = small(model, x=x)
    (record,) = passes.run([SkipSublayers((0,), (0,))], graph)
    assert record.changed == 2 and list(sublayers(graph)) == ["1"]
    torch.testing.assert_close(graph(x)["logits"], model.head(model.layers[1](x)))


def test_a_graph_that_reads_states_may_leave_out_all_attention() -> None:
    model, x = Layers(), hidden_states()
    graph = small(model, x=x)
    passes.run([SkipSublayers((0, 1), (0, 1), reads_states=True)], graph)
    torch.testing.assert_close(graph(x)["logits"], model.head(x))


@pytest.mark.parametrize(
    ("attention", "mlp", "error"),
    [
        ((), (7, 9), r"no layer 7; the graph has 0..1"),
        ((2,), (), r"no layer 2; the graph has 0..1"),
        ((0, 1), (), "nothing would be left that attends to the past; keep one layer's attention"),
    ],
)
def test_layers_that_the_graph_lacks_and_a_model_that_no_longer_attends_are_refused(
    attention: tuple[int, ...], mlp: tuple[int, ...], error: str
) -> None:
    with pytest.raises(PassError, match=error):
        passes.run([SkipSublayers(attention, mlp)], small(Layers(), x=hidden_states()))


@pytest.mark.parametrize("family", EIGHT)
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_a_layer_skipped_whole_is_the_model_without_it(family: str, layer: int) -> None:
    graph = prepared(family)
    passes.run([SkipSublayers((layer,), (layer,))], graph)
    with without(family, attention=layer, mlp=layer):
        torch.testing.assert_close(logits(graph), truth(family), atol=1e-4, rtol=1e-4)
    assert list(sublayers(graph)) == [str(i) for i in range(3) if i != layer]


@pytest.mark.parametrize("family", EIGHT)
def test_sublayers_of_different_layers(family: str) -> None:
    graph = prepared(family)
    passes.run([SkipSublayers(attention=(1,), mlp=(2,))], graph)
    with without(family, attention=1, mlp=2):
        torch.testing.assert_close(logits(graph), truth(family), atol=1e-4, rtol=1e-4)
    assert list(sublayers(graph)) == ["0", "1.mlp", "2.attention"]


@pytest.mark.parametrize("family", EIGHT)
def test_what_is_left_out_would_show(family: str) -> None:
    """The control of the tests above."""
    whole = truth(family)
    with without(family, attention=1):
        assert not torch.allclose(truth(family), whole, atol=1e-2)
    with without(family, mlp=1):
        assert not torch.allclose(truth(family), whole, atol=1e-2)
