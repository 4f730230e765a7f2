"""Fuse the rotary embedding to one node, with its angles as tables (Su et al. 2021, arXiv:2104.09864).

Models write the rotation in one of two forms. They differ in the sizes of a head that turn together:

    halves       x * cos + cat(-x[..., r / 2 :], x[..., : r / 2]) * sin
    neighbours   x * cos + flatten(stack(-x[..., 1::2], x[..., ::2])) * sin

Models write the swap in many ways, so it is not matched by operators: it is run on random numbers.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from specc.runtime.errors import PassError

from .arguments import RotaryCall, argument, int_arg, operands
from .find import ADD, MUL, ROTARY, aten, calls, computed_from, constant, evaluate, placeholder, replace, tensor_value
from .protocol import Miss, Pass

LAST_OF_SWAP = (aten.cat.default, aten.view.default, aten.reshape.default, aten.flatten.using_ints)
PROBE_SLOTS = 5
PROBE_STEPS = 16  # calls that a swap may take


class PairLayout(Enum):
    """A choice of the two sizes of a head that turn together, of R that turn."""

    HALVES = "size i with size i + R / 2"
    NEIGHBOURS = "size 2 i with size 2 i + 1"


@dataclass(frozen=True)
class FuseRotary(Pass):
    """A pass that fuses the rotary embedding of a query or a key, whole or of its first sizes.

    Given:   y = x * cos + rotated(x) * sin;  z = cat(y, rest of x)
    Result:  z = specc.rotary(x, cos table, sin table, position_ids)

    The tables hold the angles of the positions 0 … `positions` - 1. They are computed by running the graph, so where a
    model reads angles from a table of its own, BoundPositions has to come first.

    The operator wants x as [1, heads, slots, size]. Where x is [1, slots, heads, size], transpositions are added before
    it and after it; the one after it cancels out with the model's own.
    """

    positions: int
    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        position_ids = placeholder(graph, "position_ids")
        tables = _Tables(graph, position_ids, self.positions)
        changed = 0
        for add in calls(graph, ADD):
            turn = _match(graph, add)
            pair = turn if isinstance(turn, Miss) else tables.pair(turn)
            if isinstance(turn, Miss) or isinstance(pair, Miss):
                continue
            names = [constant(graph, f"rotary_{name}", table) for name, table in zip(("cos", "sin"), pair, strict=True)]
            interleaved = turn.layout is PairLayout.NEIGHBOURS
            new = replace(graph, add, ROTARY, (turn.x, *names, position_ids, interleaved))
            for embedding in _take_rest(graph, new):
                _put_heads_first(graph, embedding)
            changed += 1
        return changed

    def nearest_miss(self, graph: GraphModule) -> Miss | None:
        """Look for products of a value with angles: with what positions and weights alone decide."""
        position_ids = placeholder(graph, "position_ids")
        fixed = computed_from(graph, [position_ids])
        angles = fixed - computed_from(graph, ())
        products = [node for node in calls(graph, MUL) if _turns(node, angles, fixed)]
        tables = _Tables(graph, position_ids, self.positions)
        misses = [
            Miss(node, "multiplies by angles, but is not a part of x * cos + rotated(x) * sin") for node in products
        ]
        for add in calls(graph, ADD):
            if not set(products).isdisjoint(operands(add)):
                turn = _match(graph, add)
                pair = turn if isinstance(turn, Miss) else tables.pair(turn)
                misses += [pair] if isinstance(pair, Miss) else []
        return max(misses, key=lambda miss: miss.steps, default=None)


def _turns(product: Node, angles: Collection[Node], fixed: Collection[Node]) -> bool:
    """Tell whether one factor of a product is an angle, and the other neither an angle nor a weight."""
    return any(one in angles and other not in fixed for one, other in both_orders(product))


class _Turn(NamedTuple):
    """A rotation: `add` is x * cos + rotated(x) * sin."""

    add: Node
    x: Node
    cos: Node
    sin: Node
    layout: PairLayout


def both_orders(product: Node) -> list[tuple[Node, Node]]:
    """Return the two operands of a product in both orders, or nothing if one of them is a number."""
    pair = operands(product)
    return [(pair[0], pair[1]), (pair[1], pair[0])] if len(pair) == 2 else []


def _match(graph: GraphModule, add: Node) -> _Turn | Miss:
    """Match x * cos + rotated(x) * sin, in any order of the addends and of the factors."""
    products = [operand for operand in operands(add) if operand.target is MUL]
    if len(products) != 2:
        return Miss(add, "is not a sum of two products", steps=1)
    first, second = products
    for plain, swapped in ((first, second), (second, first)):
        for x, cos in both_orders(plain):
            for rotated, sin in both_orders(swapped):
                layout = _layout(graph, x, rotated)
                if layout is not None:
                    return _Turn(add, x, cos, sin, layout)
    return Miss(
        add, f"adds {first.name} and {second.name}, and neither swaps the other's halves or neighbours", steps=2
    )


def _layout(graph: GraphModule, x: Node, rotated: Node) -> PairLayout | None:
    """Tell which sizes of x `rotated` swaps and negates; None if it is not computed from x alone, or does neither."""
    value = tensor_value(x)
    if rotated.target not in LAST_OF_SWAP or value is None or value.ndim != 4 or not isinstance(value.shape[-1], int):
        return None
    heads = value.shape[1] if isinstance(value.shape[1], int) else 1
    probe = torch.randn(1, heads, PROBE_SLOTS, value.shape[-1], generator=torch.Generator().manual_seed(0))
    sizes = dict.fromkeys(calls(graph, aten.sym_size.int), PROBE_SLOTS)
    try:
        result = evaluate(graph, rotated, {x: probe, **sizes}, limit=PROBE_STEPS + len(sizes))
    except PassError:  # an operator refuses the probe, so this is not a swap of a head's sizes
        return None
    if result is None or result.shape != probe.shape:
        return None
    a, b = probe.chunk(2, -1)
    if torch.equal(result, torch.cat([-b, a], -1)):
        return PairLayout.HALVES
    if torch.equal(result, torch.stack([-probe[..., 1::2], probe[..., ::2]], -1).flatten(-2)):
        return PairLayout.NEIGHBOURS
    return None


class _Tables:
    """The angles that nodes of a graph stand for, at every position. Each node is computed once."""

    def __init__(self, graph: GraphModule, position_ids: Node, positions: int) -> None:
        self.graph, self.positions = graph, positions
        self.values = {position_ids: torch.arange(positions)[None]}
        self.angles: dict[Node, Tensor | None] = {}

    def pair(self, turn: _Turn) -> tuple[Tensor, Tensor] | Miss:
        """Return the tables [positions, R / 2] of cos and sin."""
        cos, sin = self._angles(turn.cos), self._angles(turn.sin)
        if cos is None or sin is None:
            node = turn.cos if cos is None else turn.sin
            return Miss(turn.add, f"turns by {node.name}, which is not one row of angles for each position", steps=3)
        cos_half, sin_half = _half(cos, turn.layout), _half(sin, turn.layout)
        if cos_half is None or sin_half is None:
            return Miss(turn.add, "turns the two sizes of a pair by different angles", steps=4)
        return cos_half, sin_half

    def _angles(self, node: Node) -> Tensor | None:
        """Return the values of a node [positions, R]; None if they need more than positions and weights."""
        if node not in self.angles:
            with torch.no_grad():
                value = evaluate(self.graph, node, self.values)
            self.angles[node] = None
            if value is not None and value.numel() == self.positions * value.shape[-1]:
                self.angles[node] = value.reshape(self.positions, value.shape[-1])
        return self.angles[node]


def _half(table: Tensor, layout: PairLayout) -> Tensor | None:
    """Return one column for each pair of [positions, R], or None if the sizes of a pair turn by two angles."""
    first, second = (table[:, ::2], table[:, 1::2]) if layout is PairLayout.NEIGHBOURS else table.chunk(2, 1)
    return first.contiguous() if torch.equal(first, second) else None


def _take_rest(graph: GraphModule, turned: Node) -> list[Node]:
    """Take in the sizes that do not turn: cat(rotary(x[:r]), x[r:]) is a rotary embedding of the first r sizes of x.

    Returns:
        The embeddings in the place of `turned`: of the whole x for each such cat, and `turned` if others use it too.
    """
    call = RotaryCall.of(turned)
    whole = []
    for cat in list(turned.users):
        parts = argument(cat, 0)
        if cat.target is not aten.cat.default or not isinstance(parts, (list, tuple)) or len(parts) != 2:
            continue
        first, rest = parts
        slices = first is turned and call.x.target is aten.slice.Tensor and rest.target is aten.slice.Tensor
        if slices and call.x.args[0] is rest.args[0] and tuple(rest.args[1:3]) == (3, call.rotated_sizes):
            whole.append(replace(graph, cat, ROTARY, (call.x.args[0], *turned.args[1:])))
            graph.graph.erase_node(cat)
    return [*whole, turned] if turned.users else whole


def _put_heads_first(graph: GraphModule, turned: Node) -> None:
    """Transpose what an embedding reads, and transpose its result back, if x is [1, slots, heads, size].

    The slots are the axis whose length is a symbol.
    """
    x = RotaryCall.of(turned).x
    value: Tensor = x.meta["val"]
    if isinstance(value.shape[1], int):
        return
    users = list(turned.users)
    with graph.graph.inserting_before(turned):
        heads_first = graph.graph.call_function(aten.transpose.int, (x, 1, 2))
    heads_first.meta = dict(turned.meta) | {"val": value.transpose(1, 2)}
    turned.replace_input_with(x, heads_first)
    with graph.graph.inserting_after(turned):
        back = graph.graph.call_function(aten.transpose.int, (turned, 1, 2))
    back.meta = dict(turned.meta)
    turned.meta = dict(heads_first.meta)
    for user in users:
        if user.target is aten.transpose.int and {int_arg(user, 1) % 4, int_arg(user, 2) % 4} == {1, 2}:
            user.replace_all_uses_with(turned)
        else:
            user.replace_input_with(turned, back)
