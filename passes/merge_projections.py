"""Queries, keys and values by one product."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.fx import GraphModule, Node

from .find import ATTENTION, SAME_VALUES, aten, calls, weight
from .fuse_rotary import ROTARY

LINEAR = aten.linear.default
BETWEEN = SAME_VALUES | {aten.transpose.int, ROTARY}


@dataclass(frozen=True)
class MergeProjections:
    """One large product costs less than three, and every node costs.

    Given:   q, k, v = linear(x, a), linear(x, b), linear(x, c), of which one attention is made
    Result:  all = linear(x, cat(a, b, c));  q, k, v = slices of all
    """

    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        changed = 0
        for node in calls(graph, ATTENTION):
            found = [_projection(head) for head in node.args[:3]]
            linears = [n for n in found if n is not None]
            if len(linears) == 3 and _mergeable(linears):
                _merge(graph, linears)
                changed += 1
        return changed


def _projection(head: Node) -> Node | None:
    """The product that a head is a view of, turned or not."""
    while head.target in BETWEEN:
        head = head.args[0]
    return head if head.target is LINEAR else None


def _mergeable(linears: Sequence[Node]) -> bool:
    bias = [len(n.args) > 2 and n.args[2] is not None for n in linears]
    weights = [n.args[1] for n in linears]
    return (
        len(set(linears)) == 3
        and len({n.args[0] for n in linears}) == 1
        and len(set(bias)) == 1
        and all(w.op == "get_attr" and len(w.users) == 1 for w in weights)
    )


def _merge(graph: GraphModule, linears: Sequence[Node]) -> None:
    first = min(linears, key=list(graph.graph.nodes).index)
    with graph.graph.inserting_before(first):
        parts = [_joined(graph, [n.args[i] for n in linears]) for i in range(1, len(first.args))]
        whole = graph.graph.call_function(LINEAR, (first.args[0], *parts))
        value = first.meta["val"]
        sizes = [n.meta["val"].shape[-1] for n in linears]
        whole.meta = dict(first.meta) | {"val": value.new_empty((*value.shape[:-1], sum(sizes)))}
        for i, n in enumerate(linears):
            start = sum(sizes[:i])
            cut = graph.graph.call_function(aten.slice.Tensor, (whole, 2, start, start + sizes[i]))
            cut.meta = dict(n.meta)
            n.replace_all_uses_with(cut)


def _joined(graph: GraphModule, nodes: Sequence[Node | None]) -> Node | None:
    """A weight that holds those of `nodes` one below the other, kept beside the first."""
    if nodes[0] is None:
        return None
    path, _, name = str(nodes[0].target).rpartition(".")
    value = torch.cat([weight(graph, n).detach() for n in nodes if n is not None])
    graph.get_submodule(path).register_buffer(f"merged_{name}", value)
    node = graph.graph.get_attr(f"{path}.merged_{name}" if path else f"merged_{name}")
    node.meta["val"] = value
    return node
