"""Compute queries, keys and values by one product."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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

    What stands between the products and attention stays: norms, rotations, scales. Layers that share their matrices
    share the merged one, too.

    Given:   q, k, v = linear(x, a), linear(x, b), linear(x, c), behind the queries, keys and values of one attention
    Result:  all = linear(x, cat(a, b, c));  q, k, v = slices of all
    """

    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        groups = _groups(graph)
        matrices = _matrices(groups.values())
        joined: dict[tuple[Node | None, ...], Node | None] = {}
        mergeable = [
            linears for attention, linears in groups.items() if _obstacle(attention, linears, matrices) is None
        ]
        for linears in mergeable:
            _merge(graph, linears, joined)
        return len(mergeable)

    def nearest_miss(self, graph: GraphModule) -> Miss | None:
        """Look for attention whose queries, keys and values come from three products of one input."""
        groups = _groups(graph)
        matrices = _matrices(groups.values())
        misses = [miss for attention, linears in groups.items() if (miss := _obstacle(attention, linears, matrices))]
        return max(misses, key=lambda miss: miss.steps, default=None)


def _groups(graph: GraphModule) -> dict[Node, list[Node]]:
    """Return for each attention the products behind its queries, keys and values, if they are three of one input."""
    groups: dict[Node, list[Node]] = {}
    for attention in calls(graph, ATTENTION):
        products = [_product_behind(node_arg(attention, index)) for index in range(3)]
        linears = [product for product in products if product is not None]
        inputs = {linear.args[0] for linear in linears}
        if len(linears) == len(set(linears)) == 3 and len(inputs) == 1:
            groups[attention] = linears
    return groups


def _matrices(groups: Iterable[Sequence[Node]]) -> dict[Node, tuple[Node, ...]]:
    """Return for each product the three matrices of its group."""
    return {linear: tuple(node_arg(each, 1) for each in linears) for linears in groups for linear in linears}


def _obstacle(attention: Node, linears: Sequence[Node], matrices: Mapping[Node, tuple[Node, ...]]) -> Miss | None:
    """Return the reason why one product cannot replace three, or None if it can.

    Args:
        attention: reads what the products return.
        linears: the products.
        matrices: see `_matrices`.
    """
    if len({optional_node(linear, 2) is None for linear in linears}) > 1:
        return Miss(attention, "has products with a bias and products without one", steps=1)
    ours = matrices[linears[0]]
    users = {user for matrix in ours for user in matrix.users}
    are_weights = len(set(ours)) == 3 and all(matrix.op == "get_attr" for matrix in ours)
    if not are_weights or any(matrices.get(user) != ours for user in users):
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


def _merge(graph: GraphModule, linears: Sequence[Node], joined: dict[tuple[Node | None, ...], Node | None]) -> None:
    """Replace three products of one input by slices of one product.

    Args:
        graph: the graph.
        linears: the products.
        joined: the weights that were joined before, by what they were made of; those that are new are added.
    """
    first = min(linears, key=nodes(graph).index)
    with graph.graph.inserting_before(first):
        parts = []
        for index in range(1, len(first.args)):
            weights = tuple(optional_node(linear, index) for linear in linears)
            if weights not in joined:
                joined[weights] = _joined(graph, weights)
            parts.append(joined[weights])
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
