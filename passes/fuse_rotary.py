"""The rotary embedding as one node, its angles as tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from .find import ADD, MUL, aten, calls, constant, evaluate, placeholder, replace

ROTARY = torch.ops.specc.rotary.default


@dataclass(frozen=True)
class FuseRotary:
    """
    Given:   y = x * cos + rotated(x) * sin;  z = cat(y, rest of x)
    Result:  z = specc.rotary(x, cos table, sin table, position_ids)

    What `rotated` does is found by running it, and so are the tables, for positions 0 … `positions` - 1.
    """

    positions: int
    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        position_ids = placeholder(graph, "position_ids")
        every = torch.arange(self.positions)[None]
        angles: dict[Node, Tensor | None] = {}

        def table(node: Node) -> Tensor | None:
            if node not in angles:
                with torch.no_grad():
                    value = evaluate(graph, node, {position_ids: every})
                size = None if value is None else value.shape[-1]
                ok = value is not None and value.numel() == self.positions * size
                angles[node] = value.reshape(self.positions, size) if ok else None
            return angles[node]

        changed = 0
        for add in calls(graph, ADD):
            found = _turn(graph, add)
            if found is None:
                continue
            x, cos_node, sin_node, interleaved = found
            cos, sin = table(cos_node), table(sin_node)
            if cos is None or sin is None or not (_halved(cos, interleaved) and _halved(sin, interleaved)):
                continue
            half = slice(None, None, 2) if interleaved else slice(cos.shape[1] // 2)
            tables = [
                constant(graph, f"rotary_{name}", t[:, half].contiguous()) for name, t in (("cos", cos), ("sin", sin))
            ]
            new = replace(graph, add, ROTARY, (x, *tables, position_ids, interleaved))
            _take_rest(graph, new)
            changed += 1
        return changed


def _turn(graph: GraphModule, add: Node) -> tuple[Node, Node, Node, bool] | None:
    """(x, cos, sin, interleaved) where `add` is x * cos + rotated(x) * sin."""
    products = [a for a in add.args[:2] if isinstance(a, Node) and a.target is MUL]
    if len(products) != 2:
        return None
    for first, second in (products, reversed(products)):
        for x, cos in (first.args[:2], first.args[1::-1]):
            for turned, sin in (second.args[:2], second.args[1::-1]):
                nodes = (
                    isinstance(x, Node) and isinstance(cos, Node) and isinstance(turned, Node) and isinstance(sin, Node)
                )
                if nodes and (interleaved := _rotation(graph, x, turned)) is not None:
                    return x, cos, sin, interleaved
    return None


def _rotation(graph: GraphModule, x: Node, turned: Node) -> bool | None:
    """Whether `turned` swaps and negates neighbours (True) or halves (False) of x; None if it does neither."""
    value = x.meta.get("val")
    if turned.target not in (aten.cat.default, aten.view.default, aten.reshape.default, aten.flatten.using_ints):
        return None
    if not isinstance(value, Tensor) or value.ndim != 4 or not isinstance(value.shape[-1], int):
        return None
    heads = value.shape[1] if isinstance(value.shape[1], int) else 1
    probe = torch.randn(1, heads, 5, value.shape[-1], generator=torch.Generator().manual_seed(0))
    sizes = {n: 5 for n in graph.graph.nodes if n.target is aten.sym_size.int}
    try:
        result = evaluate(graph, turned, {x: probe, **sizes}, limit=16 + len(sizes))
    except Exception:
        return None
    if result is None or result.shape != probe.shape:
        return None
    a, b = probe.chunk(2, -1)
    if torch.equal(result, torch.cat([-b, a], -1)):
        return False
    if torch.equal(result, torch.stack([-probe[..., 1::2], probe[..., ::2]], -1).flatten(-2)):
        return True
    return None


def _halved(table: Tensor, interleaved: bool) -> bool:
    """Whether both sizes of each pair turn by one angle."""
    a, b = (table[:, ::2], table[:, 1::2]) if interleaved else table.chunk(2, -1)
    return torch.equal(a, b)


def _take_rest(graph: GraphModule, turned: Node) -> None:
    """cat(rotary(x[:r]), x[r:]) is a rotary embedding of the first r sizes of x."""
    part, cos, sin, positions, interleaved = turned.args
    assert isinstance(part, Node) and isinstance(cos, Node)
    rotated = 2 * cos.meta["val"].shape[1]
    for cat in list(turned.users):
        if cat.target is not aten.cat.default or not isinstance(cat.args[0], (list, tuple)) or len(cat.args[0]) != 2:
            continue
        first, rest = cat.args[0]
        slices = first is turned and part.target is aten.slice.Tensor and rest.target is aten.slice.Tensor
        if slices and part.args[0] is rest.args[0] and tuple(rest.args[1:3]) == (3, rotated):
            replace(graph, cat, ROTARY, (part.args[0], cos, sin, positions, interleaved))
