"""Places in graphs, by operator and module path."""

from __future__ import annotations

import pytest
import torch
from graphs import prepared
from small_graphs import Attend, Layer, Layers, ParallelLayer, graph_text, hidden_states, small
from torch import Tensor, nn

from specc.passes import find
from specc.runtime.errors import PassError

pytestmark = pytest.mark.torch

aten = torch.ops.aten


def double(x: Tensor) -> Tensor:
    return (x * 2 + 1) * 3


def test_calls_are_those_of_the_operators_in_order() -> None:
    graph = small(double, x=torch.ones(2))
    assert [n.name for n in find.calls(graph, aten.mul.Tensor)] == ["mul", "mul_1"]
    assert [n.name for n in find.calls(graph, aten.add.Tensor, aten.mul.Tensor)] == ["mul", "add", "mul_1"]
    assert find.calls(graph, aten.sub.Tensor) == []


def test_a_placeholder_by_name_or_an_error() -> None:
    graph = small(double, x=torch.ones(2))
    assert find.placeholder(graph, "x").op == "placeholder"
    with pytest.raises(PassError, match="the graph has no input 'mul'"):
        find.placeholder(graph, "mul")


def test_equal_constants_of_one_name_are_one_and_others_get_underscores() -> None:
    graph = small(double, x=torch.ones(2))
    one, same, other, third = (find.constant(graph, "c", torch.tensor(v)) for v in ([1.0], [1.0], [2.0], [3.0]))
    assert one is same and [n.target for n in (one, other, third)] == ["c", "c_", "c__"]
    assert find.constant(graph, "c", torch.tensor([3.0])) is third
    assert torch.equal(one.meta["val"], torch.tensor([1.0]))
    assert torch.equal(graph.get_buffer("c_"), torch.tensor([2.0]))


def test_inputs_are_added_behind_those_that_there_are() -> None:
    graph = small(double, x=torch.ones(2))
    new = find.new_input(graph, "y", torch.zeros(3))
    find.new_input(graph, "z", torch.zeros(3))
    assert graph_text(graph).startswith("inputs x, y, z\n") and new.meta["val"].shape == (3,)


class Scaled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(2))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + 1


def test_what_comes_first_behind_inputs_and_behind_weights() -> None:
    graph = small(Scaled(), x=torch.ones(2))
    assert find.after_placeholders(graph).op == "get_attr" and find.first_call(graph).name == "mul"


def test_replace_takes_over_users_shape_and_module() -> None:
    graph = small(double, x=torch.ones(2))
    add = find.calls(graph, aten.add.Tensor)[0]
    new = find.replace(graph, add, aten.sub.Tensor, add.args)
    assert not add.users and [u.name for u in new.users] == ["mul_1"]
    assert new.meta == add.meta and new.meta is not add.meta


def test_outputs_are_read_and_set_by_name() -> None:
    graph = small(double, x=torch.ones(2))
    named = find.outputs(graph)
    find.set_outputs(graph, named | {"again": named["logits"]})
    assert list(find.outputs(graph)) == ["logits", "again"]
    graph.graph.output_node().args = ((named["logits"],),)
    with pytest.raises(PassError, match="a captured graph returns a dict of outputs"):
        find.outputs(graph)


def test_layers_are_found_by_module_path() -> None:
    assert find.layers(prepared("gpt2")) == {i: f"model.transformer.h.{i}" for i in range(3)}


def test_attention_in_no_numbered_module_is_named() -> None:
    class Bare(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.ops.specc.attention(x, x, x, None, 0.5, 0, 0.0, 0)  # type: ignore[no-any-return]

    with pytest.raises(PassError, match=r"attention lies in no numbered module, but in \['', 'model'\]"):
        find.layers(small(Bare(), x=hidden_states()))


class Numbered(torch.nn.Module):
    """A layer of a trained head, whose attention and product lie in the numbered module itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.ModuleList([Attend(4)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers[0](x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("module", [Attend(4), Numbered()], ids=["in no numbered module", "in the numbered module"])
def test_a_layer_that_cannot_be_told_from_its_attention_is_whole(module: torch.nn.Module) -> None:
    assert list(find.sublayers(small(module, x=hidden_states()))) == ["4"]


def test_sublayers_are_named_by_what_is_left_of_a_layer() -> None:
    class OnlyAttention(Layer):
        def forward(self, x: Tensor) -> Tensor:
            return x + self.self_attn(x)  # type: ignore[no-any-return]

    class OnlyMlp(Layer):
        def forward(self, x: Tensor) -> Tensor:
            return x + self.mlp(x)  # type: ignore[no-any-return]

    graph = small(Layers(Layer(0), OnlyAttention(1), OnlyMlp(2), ParallelLayer(3)), x=hidden_states())
    assert list(find.sublayers(graph)) == ["0", "1.attention", "2.mlp", "3"]


def test_a_layer_whose_values_nobody_uses_has_no_output() -> None:
    graph = small(Layers(), x=hidden_states())
    assert find.layer_output(graph, "model.layers.0").name == "add_1"
    with pytest.raises(PassError, match=r"model\.layers\.9: no node outside the layer uses one of its nodes"):
        find.layer_output(graph, "model.layers.9")


def test_what_weights_and_chosen_inputs_decide() -> None:
    graph = small(lambda x, y: (x + 1) * (y * 2), x=torch.ones(2), y=torch.ones(2))
    x = find.placeholder(graph, "x")
    assert {n.name for n in find.computed_from(graph, [x])} == {"x", "add"}
    assert find.computed_from(graph, ()) == set()
    assert {n.name for n in find.computed_from(small(Scaled(), x=torch.ones(2)), ())} == {"model_scale"}


def test_evaluate_computes_what_the_values_decide() -> None:
    graph = small(lambda x, y: (x + 1) * 2 - y, x=torch.ones(2), y=torch.ones(2))
    x, end = find.placeholder(graph, "x"), find.outputs(graph)["logits"]
    product = find.calls(graph, aten.mul.Tensor)[0]
    result = find.evaluate(graph, product, {x: torch.tensor([1.0, 4.0])})
    assert result is not None and result.tolist() == [4, 10]
    assert find.evaluate(graph, end, {x: torch.ones(2)}) is None  # y is open
    assert find.evaluate(graph, product, {x: torch.ones(2)}, limit=2) is not None
    assert find.evaluate(graph, product, {x: torch.ones(2)}, limit=1) is None
    assert find.evaluate(graph, product, {product: 3}) is None  # not a tensor


def test_evaluate_reads_weights() -> None:
    graph = small(Scaled(), x=torch.ones(2))
    result = find.evaluate(graph, find.outputs(graph)["logits"], {find.placeholder(graph, "x"): torch.full((2,), 5.0)})
    assert result is not None and result.tolist() == [6, 6]


def test_an_operator_that_refuses_the_values_is_named() -> None:
    graph = small(lambda x: x @ x, x=torch.ones(2, 2))
    with pytest.raises(PassError, match="matmul cannot be computed from these values: "):
        find.evaluate(graph, find.outputs(graph)["logits"], {find.placeholder(graph, "x"): torch.ones(2, 3)})


def test_a_value_without_data_is_a_tensor_or_none() -> None:
    graph = small(double, x=torch.ones(2))
    node = find.outputs(graph)["logits"]
    value = find.tensor_value(node)
    assert value is not None and value.shape == (2,)
    node.meta["val"] = 3
    assert find.tensor_value(node) is None
    del node.meta["val"]
    assert find.tensor_value(node) is None
