"""Typed access to the arguments of nodes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.fx import Graph, Node

from specc.passes import operators as _operators  # noqa: F401
from specc.passes.arguments import (
    AttentionCall,
    CachedAttentionCall,
    LanesAttentionCall,
    RotaryCall,
    argument,
    float_arg,
    int_arg,
    ints_arg,
    node_arg,
    nodes_arg,
    operands,
    optional_node,
)
from specc.runtime.errors import PassError

pytestmark = pytest.mark.torch


def call(*args: Any, target: Any = torch.ops.aten.add.Tensor) -> Node:
    return Graph().call_function(target, args)


X, Y = (Graph().placeholder(name) for name in "xy")


def test_an_argument_that_is_missing_is_none() -> None:
    node = call(X, 2)
    assert [argument(node, i) for i in (0, 1, 2, -1, -2, -3)] == [X, 2, None, 2, X, None]


GOOD = [
    (node_arg, X, X),
    (optional_node, X, X),
    (optional_node, None, None),
    (int_arg, 3, 3),
    (float_arg, 3, 3.0),
    (float_arg, 0.5, 0.5),
    (ints_arg, (1, 2), [1, 2]),
    (ints_arg, [], []),
    (nodes_arg, [X, Y], [X, Y]),
]


@pytest.mark.parametrize(("accessor", "value", "expected"), GOOD)
def test_a_value_of_the_type_is_returned(accessor: Callable[[Node, int], Any], value: Any, expected: Any) -> None:
    result = accessor(call(Y, value), 1)
    assert result == expected and type(result) is type(expected)


BAD = [
    (node_arg, 2.0, "a node"),
    (node_arg, None, "a node"),
    (optional_node, 2.0, "a node"),
    (int_arg, 2.5, "an int"),
    (int_arg, None, "an int"),
    (float_arg, "2", "a number"),
    (ints_arg, 2, "a list of ints"),
    (ints_arg, [1, 2.5], "a list of ints"),
    (nodes_arg, X, "a list of nodes"),
    (nodes_arg, [X, 1], "a list of nodes"),
]


@pytest.mark.parametrize(("accessor", "value", "kind"), BAD)
def test_a_value_of_another_type_is_named(accessor: Callable[[Node, int], Any], value: Any, kind: str) -> None:
    with pytest.raises(PassError) as e:
        accessor(call(Y, value), 1)
    assert str(e.value) == f"add_tensor: argument 1 is {value!r}; a pass expected {kind}"


def test_operands_are_the_nodes_among_the_first_two() -> None:
    assert operands(call(X, Y)) == [X, Y] and operands(call(X, 2)) == [X] and operands(call(2, Y, X)) == [Y]


def test_a_call_of_attention_reads_its_arguments_by_name() -> None:
    q, k, v, sinks = (Graph().placeholder(name) for name in ("q", "k", "v", "sinks"))
    node = call(q, k, v, sinks, 0.5, 3, 1.5, 7, target=torch.ops.specc.attention.default)
    assert AttentionCall.of(node) == AttentionCall(
        query=q, key=k, value=v, sinks=sinks, scale=0.5, window=3, softcap=1.5, layer=7
    )


def test_a_call_of_cached_attention_reads_its_arguments_by_name() -> None:
    names = ("query", "key", "value", "past_key", "past_value", "past_len", "mask", "positions")
    values = {name: Graph().placeholder(name) for name in names}
    node = call(*values.values(), None, 0.5, 3, 1.5, 7, target=torch.ops.specc.cached_attention.default)
    expected = CachedAttentionCall(**values, sinks=None, scale=0.5, window=3, softcap=1.5, layer=7)
    assert CachedAttentionCall.of(node) == expected
    assert expected.caches == [values["past_key"], values["past_value"]]


@pytest.mark.parametrize("has_mask", [False, True])
def test_a_call_of_attention_over_lanes_reads_its_arguments_by_name(has_mask: bool) -> None:
    names = ("query", "key", "value", "past_len", "widths", "mask", "positions")
    values: dict[str, Any] = {name: Graph().placeholder(name) for name in names}
    pasts = [Graph().placeholder(name) for name in ("key_0", "value_0", "key_1", "value_1", "key_2", "value_2")]
    values["mask"] = values["mask"] if has_mask else None
    heads = [values.pop(name) for name in ("query", "key", "value")]
    arguments = (*heads, pasts, *values.values(), None, 0.5, 3, 1.5, 7)
    lanes = LanesAttentionCall.of(call(*arguments, target=torch.ops.specc.lanes_attention.default))
    query, key, value = heads
    assert lanes == LanesAttentionCall(
        query=query, key=key, value=value, pasts=pasts, **values, sinks=None, scale=0.5, window=3, softcap=1.5, layer=7
    )
    assert lanes.caches == pasts and lanes.lanes == 3


def test_a_call_of_rotary_knows_how_many_sizes_turn() -> None:
    values = {name: Graph().placeholder(name) for name in ("x", "cos", "sin", "positions")}
    values["cos"].meta["val"] = torch.zeros(9, 3)
    rotary = RotaryCall.of(call(*values.values(), True, target=torch.ops.specc.rotary.default))
    assert rotary == RotaryCall(**values, interleaved=True) and rotary.rotated_sizes == 6
