"""Compute queries, keys and values by one product."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.fx import GraphModule, Node

from .arguments import node_arg, optional_node
from .find import ATTENTION, MATRICES, aten, calls, nodes, weight
from .protocol import Miss, Pass

LINEAR = aten.linear.default


@dataclass(frozen=True)
class MergeProjections(Pass):
    """A pass that merges three products into one: a large product costs less than three, and every node costs time.

    What stands between the products and attention stays: norms, rotations, scales.

    Given:   q, k, v = linear(x, a), linear(x, b), linear(x, c), behind the queries, keys and values of one attention
    Result:  all = linear(x, cat(a, b, c));  q, k, v = slices of all
    """

    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        changed = 0
        for attention in calls(graph, ATTENTION):
            linears = _projections(attention)
            if linears and _obstacle(attention, linears) is None:
                _merge(graph, linears)
                changed += 1
        return changed

    def nearest_miss(self, graph: GraphModule) -> Miss | None:
        """Look for attention whose queries, keys and values come from three products of one input."""
        misses = [
            miss
            for attention in calls(graph, ATTENTION)
            if (linears := _projections(attention)) and (miss := _obstacle(attention, linears))
        ]
        return max(misses, key=lambda miss: miss.steps, default=None)


def _projections(attention: Node) -> list[Node] | None:
    """Return the products behind queries, keys and values; None if these are not three products of one input."""
    products = [_product_behind(node_arg(attention, index)) for index in range(3)]
    linears = [product for product in products if product is not None]
    inputs = {linear.args[0] for linear in linears}
    return linears if len(linears) == len(set(linears)) == 3 and len(inputs) == 1 else None


def _obstacle(attention: Node, linears: Sequence[Node]) -> Miss | None:
    """Return the reason why one product cannot replace three, or None if it can."""
    if len({optional_node(linear, 2) is None for linear in linears}) > 1:
        return Miss(attention, "has products with a bias and products without one", steps=1)
    weights = [node_arg(linear, 1) for linear in linears]
    if not all(matrix.op == "get_attr" and len(matrix.users) == 1 for matrix in weights):
        return Miss(attention, "has a product whose matrix is computed, or used elsewhere", steps=2)
    return None


def _product_behind(head: Node) -> Node | None:
    """Return the product with a matrix that a head is computed from, whatever stands between; None if there is none."""
    while head.op == "call_function" and head.target not in MATRICES:
        sources = [node for node in head.all_input_nodes if node.op == "call_function"]
        if not sources:
            return None
        head = sources[0]
    return head if head.target is LINEAR else None


def _merge(graph: GraphModule, linears: Sequence[Node]) -> None:
    """Replace three products of one input by slices of one product."""
    first = min(linears, key=nodes(graph).index)
    with graph.graph.inserting_before(first):
        parts = [_joined(graph, [optional_node(linear, i) for linear in linears]) for i in range(1, len(first.args))]
        whole = graph.graph.call_function(LINEAR, (first.args[0], *parts))
        value = first.meta["val"]
        sizes = [linear.meta["val"].shape[-1] for linear in linears]
        whole.meta = dict(first.meta) | {"val": value.new_empty((*value.shape[:-1], sum(sizes)))}
        for i, linear in enumerate(linears):
            start = sum(sizes[:i])
            cut = graph.graph.call_function(aten.slice.Tensor, (whole, 2, start, start + sizes[i]))
            cut.meta = dict(linear.meta)
            linear.replace_all_uses_with(cut)


def _joined(graph: GraphModule, nodes: Sequence[Node | None]) -> Node | None:
    """Return the node of a new weight that holds those of `nodes` one below the other; None if there are none.

    The weight is kept in the module of the first one.
    """
    weights = [node for node in nodes if node is not None]
    if not weights:
        return None
    path, _, name = str(weights[0].target).rpartition(".")
    value = torch.cat([weight(graph, node).detach() for node in weights])
    graph.get_submodule(path).register_buffer(f"merged_{name}", value)
    joined = graph.graph.get_attr(f"{path}.merged_{name}" if path else f"merged_{name}")
    joined.meta["val"] = value
    return joined
