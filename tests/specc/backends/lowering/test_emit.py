"""ONNX operators in torch graphs, and the shapes that they need."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_graphs import graph_text, small
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from specc.backends.lowering.emit import (
    count_slots,
    emit,
    emit_several,
    shape,
    shape_at,
    swap,
    swap_each,
    swap_results,
)
from specc.passes.arguments import node_arg
from specc.passes.find import calls, new_input, outputs
from specc.runtime.errors import PassError

pytestmark = pytest.mark.torch

aten = torch.ops.aten


def doubled() -> GraphModule:
    return small(lambda input_ids: input_ids * 2 + 1, input_ids=torch.zeros(1, 3, dtype=torch.long))


def test_an_operator_is_inserted_with_its_inputs_attributes_shape_and_type() -> None:
    graph = doubled()
    product = calls(graph, aten.mul.Tensor)[0]
    with graph.graph.inserting_after(product):
        attributes = {"axis": -1, "mode": "linear", "eps": 0.5}
        new = emit(graph.graph, "com.some::Odd", [product, None], [1, 7], torch.float16, **attributes)
    assert graph_text(graph).splitlines()[2] == "odd_1 = com.some.Odd(mul_1, None, axis=-1, mode=linear, eps=0.5)"
    value = result_of(new)
    assert value.shape == (1, 7) and value.dtype == torch.float16


def test_an_operator_of_several_results_has_their_shapes_in_float32() -> None:
    graph = doubled()
    product = calls(graph, aten.mul.Tensor)[0]
    with graph.graph.inserting_after(product):
        new = emit_several(graph.graph, "Odd", [product], [[1, 7], [3]], axis=1)
    values = result_of(new)
    assert [tuple(v.shape) for v in values] == [(1, 7), (3,)] and {v.dtype for v in values} == {torch.float32}


def result_of(node: Node) -> Any:
    """Run a node's operator on tensors without data."""
    inputs, *others = node.args
    tensors = [None if i is None else torch.empty(1, 3, device="meta") for i in inputs]  # type: ignore[union-attr]
    return node.target(tensors, *others, **node.kwargs)  # type: ignore[operator]


def test_swap_hands_on_users_and_meta() -> None:
    graph = doubled()
    add = calls(graph, aten.add.Tensor)[0]
    with graph.graph.inserting_before(add):
        new = graph.graph.call_function(aten.sub.Tensor, add.args)
    swap(add, new)
    assert outputs(graph)["logits"] is new and new.meta == add.meta and new.meta is not add.meta


def test_swap_each_replaces_every_call_and_counts_them() -> None:
    graph = small(lambda x: (x * 2) * 3, x=torch.ones(2))

    def halved(node: Node) -> Node:
        return graph.graph.call_function(aten.div.Tensor, (node_arg(node, 0), node.args[1]))

    assert swap_each(graph, aten.mul.Tensor, halved) == 2
    graph.graph.eliminate_dead_code()
    assert swap_each(graph, aten.mul.Tensor, halved) == 0
    assert graph_text(graph) == "inputs x\ndiv_1 = div(x, 2)\ndiv_2 = div(div_1, 3)\nreturn {logits: div_2}"
    assert all("nn_module_stack" in node.meta for node in calls(graph, aten.div.Tensor))


def test_swap_results_replaces_the_items_of_a_call() -> None:
    graph = small(lambda x: x.topk(2)[0] + x.topk(2)[1], x=torch.arange(3.0))
    first, second = calls(graph, aten.topk.default)
    values, indices = (next(iter(node.users)) for node in (first, second))
    swap_results(first, (second, first))
    assert values.users == {} and first.users.keys() >= {values}
    assert node_arg(calls(graph, aten.add.Tensor)[0], 0) is second
    assert second.meta["nn_module_stack"] == first.meta["nn_module_stack"] and indices.args == (second, 1)


def test_a_call_that_is_used_whole_has_no_results_to_swap() -> None:
    graph = doubled()
    product = calls(graph, aten.mul.Tensor)[0]
    with pytest.raises(PassError, match="add uses all results of mul at once"):
        swap_results(product, (product,))


class OpenSlots(nn.Module):
    """A model whose number of slots is open."""

    def forward(self, input_ids: Tensor) -> Tensor:
        return torch.cat([input_ids, input_ids], 1)[..., None].expand(-1, -1, 4)


def test_a_size_that_the_slots_decide_is_zero_or_what_they_make_it() -> None:
    slots = torch.export.Dim("slots", min=2, max=64)
    example = (torch.zeros(1, 5, dtype=torch.long),)
    graph = torch.export.export(OpenSlots(), example, dynamic_shapes=({1: slots},)).module(check_guards=False)
    assert isinstance(graph, GraphModule)
    (node,) = calls(graph, aten.expand.default)
    assert shape(node) == [1, 0, 4] and shape_at(node, 7) == [1, 14, 4]


def test_the_slots_are_counted_once() -> None:
    graph = doubled()
    new_input(graph, "past_len", torch.zeros(1))
    count = count_slots(graph)
    assert count_slots(graph) is count
    assert graph_text(graph).splitlines()[:2] == [
        "inputs input_ids, past_len",
        "shape_1 = Shape(input_ids, start=1, end=2)",
    ]
