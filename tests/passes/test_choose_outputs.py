"""ChooseOutputs: what a block returns, by name."""

from __future__ import annotations

import pytest
import torch
from blocks import build, run
from expecttest import assert_expected_inline
from graphs import EIGHT, SLOTS, stack, tokens, truth
from small_graphs import Layers, hidden_states, rewrite, small
from torch import Tensor

from specc.passes.choose_outputs import ChooseOutputs
from specc.passes.find import constant, fork, outputs, set_outputs
from specc.runtime.block import Block
from specc.runtime.errors import PassError
from specc.runtime.tree import Tree

pytestmark = pytest.mark.torch


def double(x: Tensor) -> Tensor:
    return x * 2


def test_ids_are_an_argmax_beside_the_logits() -> None:
    graph = small(double, x=torch.tensor([[1.0, 3.0, 2.0]]))
    assert_expected_inline(
        rewrite(graph, ChooseOutputs(("ids", "logits"))),
        """\
inputs x
mul_1 = mul(x, 2)
return {logits: mul_1}
--> ChooseOutputs(outputs=('ids', 'logits')) changed 2
inputs x
mul_1 = mul(x, 2)
argmax_1 = argmax(mul_1, -1)
return {ids: argmax_1, logits: mul_1}""",
    )
    assert graph(torch.tensor([[1.0, 3.0, 2.0]]))["ids"].tolist() == [1]


def test_ids_are_the_first_of_the_top_k() -> None:
    graph = small(double, x=torch.tensor([[1.0, 3.0, 2.0]]))
    assert_expected_inline(
        rewrite(graph, ChooseOutputs(("ids", "top_k:2"))),
        """\
inputs x
mul_1 = mul(x, 2)
return {logits: mul_1}
--> ChooseOutputs(outputs=('ids', 'top_k:2')) changed 2
inputs x
mul_1 = mul(x, 2)
topk_1 = topk(mul_1, 2)
item_1 = topk_1[1]
log_softmax_1 = log_softmax(mul_1, -1)
gather_1 = gather(log_softmax_1, -1, item_1)
select_1 = select(item_1, -1, 0)
return {ids: select_1, top_ids: item_1, top_logprobs: gather_1}""",
    )
    values = graph(torch.tensor([[1.0, 3.0, 2.0]]))
    assert (values["ids"].tolist(), values["top_ids"].tolist()) == ([1], [[1, 2]])
    expected = torch.tensor([[2.0, 6.0, 4.0]]).log_softmax(-1)[:, [1, 2]]
    torch.testing.assert_close(values["top_logprobs"], expected)


def test_a_hidden_state_is_the_residual_stream_behind_its_layer() -> None:
    graph = small(Layers(), x=hidden_states())
    assert_expected_inline(
        rewrite(graph, ChooseOutputs(("hidden:0", "hidden:-1"))),
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
--> ChooseOutputs(outputs=('hidden:0', 'hidden:-1')) changed 2
inputs x
attention_1 = specc.attention(x, x, x, None, 0.5, 0, 0.0, 0)
add_1 = add(x, attention_1)
linear_1 = linear(add_1, self.layers.0.mlp.weight)
add_2 = add(add_1, linear_1)
attention_2 = specc.attention(add_2, add_2, add_2, None, 0.5, 0, 0.0, 1)
add_3 = add(add_2, attention_2)
linear_2 = linear(add_3, self.layers.1.mlp.weight)
add_4 = add(add_3, linear_2)
return {hidden_0: add_2, hidden_-1: add_4}""",
    )


def test_numbers_of_a_vocabulary_of_some_tokens_become_the_tokens_themselves() -> None:
    graph = small(double, x=torch.tensor([[1.0, 3.0, 2.0]]))
    tokens_of_three = constant(graph, "vocabulary", torch.tensor([50, 40, 60]))
    set_outputs(graph, outputs(graph) | {"vocabulary": tokens_of_three})
    assert_expected_inline(
        rewrite(graph, ChooseOutputs(("ids", "top_k:2"))),
        """\
inputs x
mul_1 = mul(x, 2)
return {logits: mul_1, vocabulary: self.vocabulary}
--> ChooseOutputs(outputs=('ids', 'top_k:2')) changed 2
inputs x
mul_1 = mul(x, 2)
topk_1 = topk(mul_1, 2)
item_1 = topk_1[1]
log_softmax_1 = log_softmax(mul_1, -1)
gather_1 = gather(log_softmax_1, -1, item_1)
select_1 = select(item_1, -1, 0)
index_1 = index(self.vocabulary, [select_1])
index_2 = index(self.vocabulary, [item_1])
return {ids: index_1, top_ids: index_2, top_logprobs: gather_1}""",
    )
    values = graph(torch.tensor([[1.0, 3.0, 2.0]]))
    assert (values["ids"].tolist(), values["top_ids"].tolist()) == ([40], [[40, 60]])


@pytest.mark.parametrize("slots", [1, 3])
def test_logits_of_tokens_outside_the_vocabulary_are_minus_infinity(slots: int) -> None:
    x = torch.randn(1, slots, 3)
    graph = small(double, x=x)
    tables = {"vocabulary": torch.tensor([5, 0, 3]), "places": torch.tensor([1, 3, 3, 2, 3, 0])}
    nodes = {name: constant(graph, name, table) for name, table in tables.items()}
    set_outputs(graph, outputs(graph) | nodes)
    ChooseOutputs(("ids", "logits"))(graph)
    graph.recompile()
    values = graph(x)
    expected = torch.full((1, slots, 6), -torch.inf)
    expected[..., tables["vocabulary"]] = x * 2
    assert torch.equal(values["logits"], expected) and torch.equal(values["ids"], expected.argmax(-1))


def test_ranks_of_stacked_heads_stand_side_by_side() -> None:
    x = torch.tensor([[[[1.0, 3.0, 2.0], [9.0, 7.0, 8.0]]]])  # [1, 1 slot, 2 heads, 3 tokens]
    graph = small(double, x=x)
    ChooseOutputs(("ids", "top_k:2"))(graph)
    graph.recompile()
    values = graph(x)
    assert values["top_ids"].tolist() == [[[[1, 2], [0, 2]]]] and values["ids"].tolist() == [[[1, 0]]]


def test_states_are_there_if_the_block_asks_for_them() -> None:
    graph = small(double, x=torch.ones(1, 3))
    logits = outputs(graph)["logits"]
    set_outputs(graph, {"logits": logits, "state:a": logits, "state:b": logits, "next_state": logits})
    twin = fork(graph)
    ChooseOutputs(("ids", "state:b", "next_state"))(graph)
    assert list(outputs(graph)) == ["ids", "state_b", "next_state"]
    with pytest.raises(PassError, match="no output 'state:c'; the graph has logits, state:a, state:b, next_state"):
        ChooseOutputs(("state:c",))(twin)


def test_other_outputs_stay_behind_the_chosen_ones() -> None:
    graph = small(double, x=torch.ones(1, 3))
    logits = outputs(graph)["logits"]
    set_outputs(graph, {"present": logits, "logits": logits})
    ChooseOutputs(("ids",))(graph)
    assert list(outputs(graph)) == ["ids", "present"]


def test_a_hidden_layer_that_the_graph_lacks_is_refused() -> None:
    with pytest.raises(PassError, match=r"no layer 9; the graph has \[0, 1, 2\]"):
        build("llama", Block(Tree.chain(2), outputs=("hidden:9",)))


@pytest.mark.parametrize("family", EIGHT)
def test_top_k_and_hidden_states_leave_by_name(family: str) -> None:
    """A hidden state is what its layer hands on, before any norm of the model's own."""
    graph = build(family, Block(Tree.chain(SLOTS), outputs=("top_k:3", "hidden:-1", "hidden:0")))
    values = run(graph, tokens(), {}, 0)
    states: list[Tensor] = []
    hooks = [layer.register_forward_hook(lambda *a: states.append(a[2])) for layer in stack(family)[1]]
    expected = truth(family).log_softmax(-1).topk(3)
    for hook in hooks:
        hook.remove()
    torch.testing.assert_close(values["top_logprobs"][0], expected.values, atol=1e-4, rtol=1e-4)
    assert torch.equal(values["top_ids"][0], expected.indices) and "logits" not in values
    for name, layer in (("hidden_0", 0), ("hidden_-1", 2)):
        state = states[layer][0] if isinstance(states[layer], tuple) else states[layer]
        torch.testing.assert_close(values[name], state, atol=1e-4, rtol=1e-4)
