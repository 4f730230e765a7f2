"""Lower to torch's own operators, for backends that compile torch graphs.

N  slots      C  capacity
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch.fx import GraphModule, Node

from specc.backends.lowering.emit import shape, shape_at, swap_each, swap_results
from specc.backends.lowering.masks import Masks, written_out
from specc.passes import Pass
from specc.passes.arguments import CachedAttentionCall, RotaryCall, float_arg, node_arg
from specc.passes.find import CACHED, RMS_NORM, ROTARY, calls, constant, outputs, set_outputs
from specc.passes.find import aten as ops


def lowering(slots: int, in_place: bool = True) -> list[Pass]:
    """Return the passes of this lowering, in order.

    Args:
        slots: The number of slots.
        in_place: Write into the caches, which are inputs. If not, they are only read, and the slots' rows are outputs.
    """
    return [Attend(slots, in_place), Turns(), Norms()]


@dataclass(frozen=True)
class Attend(Pass):
    """A pass that rewrites attention. Queries of heads that share keys are handed over as more slots.

    Given:   out, keys, values = specc.cached_attention(q, k, v, past_key, past_value, past_len, mask, …)
    Result:  keys = index_copy_(past_key, 2, past_len + [0 … N), k);  values likewise
             out = scaled_dot_product_attention(q, keys, values, visible)

    The outputs `present.*` go: a cache is written where it lies. If not `in_place`, it stays as it is, and there are
    outputs rows.L.key and rows.L.value [1, heads, N, size] instead:
             keys = cat(past_key, k);  values likewise
             visible = cat(visible rows in use, rows visible at past_len + [0 … N))
    """

    slots: int
    in_place: bool = True
    optional: ClassVar[bool] = True  # A trained head may have no attention.

    def __call__(self, graph: GraphModule) -> int:
        attentions = calls(graph, CACHED)
        shared: _Shared | None = None
        rows: dict[str, Node] = {}
        for node in attentions:
            call = CachedAttentionCall.of(node)
            with graph.graph.inserting_before(node):
                shared = shared or _Shared(graph, self.slots, call)
                results = self._attend(call, shared)
            rows |= {f"rows.{call.layer}.key": call.key, f"rows.{call.layer}.value": call.value}
            swap_results(node, results)
        named = {name: node for name, node in outputs(graph).items() if not name.startswith("present.")}
        set_outputs(graph, named if self.in_place else named | rows)
        return len(attentions)

    def _attend(self, call: CachedAttentionCall, shared: _Shared) -> tuple[Node, Node, Node]:
        """Insert attention for one call; return the output, and the keys and values that it read."""
        graph, insert = shared.graph, shared.graph.graph.call_function
        visible, capacity = shared.masks.visible(call), shared.masks.capacity
        if self.in_place:
            keys = insert(ops.index_copy_.default, (call.past_key, 2, shared.slot_rows, call.key))
            values = insert(ops.index_copy_.default, (call.past_value, 2, shared.slot_rows, call.value))
        else:
            keys = insert(ops.cat.default, ([call.past_key, call.key], 2))
            values = insert(ops.cat.default, ([call.past_value, call.value], 2))
            capacity += self.slots
            visible = shared.visible_beside(visible, call.past_len)
        if call.softcap or call.sinks is not None:
            return written_out(graph, self.slots, call, keys, values, capacity, visible), keys, values
        (_, heads, slots, size), kv_heads = shape_at(call.query, self.slots), shape(call.past_key)[1]
        grouped = insert(ops.reshape.default, (call.query, [1, kv_heads, heads // kv_heads * slots, size]))
        mask = shared.repeated(visible, heads // kv_heads)
        attend = (grouped, keys, values, mask, 0.0, False)  # no dropout, and no causal mask of torch's own
        out = insert(ops.scaled_dot_product_attention.default, attend, {"scale": call.scale})
        return insert(ops.reshape.default, (out, [1, heads, slots, size])), keys, values


@dataclass
class _Shared:
    """The values that all layers' attention shares. `first`: the first call of the graph, which they stand before."""

    graph: GraphModule
    slots: int
    first: CachedAttentionCall
    beside: dict[Node, Node] = field(default_factory=dict)
    by_groups: dict[tuple[Node, int], Node] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.masks = Masks(self.graph, self.slots, shape(self.first.past_key)[2])
        numbers = constant(self.graph, "slots", torch.arange(self.slots))
        self.slot_rows = self.graph.graph.call_function(ops.add.Tensor, (self.first.past_len, numbers))

    def visible_beside(self, visible: Node, past_len: Node) -> Node:
        """Return what is visible of the cache, and behind it what is visible of the slots: [1, 1, N, C + N]."""
        if visible not in self.beside:
            insert = self.graph.graph.call_function
            rows = constant(self.graph, "cached", torch.arange(self.masks.capacity))
            used = insert(ops.lt.Tensor, (rows, past_len))
            of_cache = insert(ops.logical_and.default, (visible, used))
            of_slots = insert(ops.index_select.default, (visible, 3, self.slot_rows))
            self.beside[visible] = insert(ops.cat.default, ([of_cache, of_slots], 3))
        return self.beside[visible]

    def repeated(self, visible: Node, groups: int) -> Node:
        """Return a mask for as many copies of the slots as heads share keys."""
        if (visible, groups) not in self.by_groups:
            repeated = self.graph.graph.call_function(ops.repeat.default, (visible, [1, 1, groups, 1]))
            self.by_groups[visible, groups] = repeated
        return self.by_groups[visible, groups]


@dataclass(frozen=True)
class Turns(Pass):
    """A pass that rewrites the rotary embedding. `c` and `s` are the rows of the tables for the positions.

    Given:   y = specc.rotary(x, cos, sin, positions, interleaved)
    Result:  y = cat(a * c - b * s, b * c + a * s, rest)
    """

    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        angles: dict[tuple[Node, Node, Node], tuple[Node, Node]] = {}

        def turned(node: Node) -> Node:
            call = RotaryCall.of(node)
            key = call.cos, call.sin, call.positions
            if key not in angles:
                angles[key] = _angles(graph, call)
            return _turned(graph, call, *angles[key])

        return swap_each(graph, ROTARY, turned)


def _angles(graph: GraphModule, call: RotaryCall) -> tuple[Node, Node]:
    """Insert the look-up of the rows of both tables for the slots, [N, R / 2]."""
    insert = graph.graph.call_function
    row = insert(ops.squeeze.dims, (call.positions, [0]))
    return insert(ops.index_select.default, (call.cos, 0, row)), insert(ops.index_select.default, (call.sin, 0, row))


def _turned(graph: GraphModule, call: RotaryCall, cos: Node, sin: Node) -> Node:
    """Insert the rotation of `call.x` by angles for each slot."""
    insert, rotated = graph.graph.call_function, call.rotated_sizes
    size = shape(call.x)[3]
    if call.interleaved:
        a = insert(ops.slice.Tensor, (call.x, 3, 0, rotated, 2))
        b = insert(ops.slice.Tensor, (call.x, 3, 1, rotated, 2))
    else:
        a = insert(ops.slice.Tensor, (call.x, 3, 0, rotated // 2, 1))
        b = insert(ops.slice.Tensor, (call.x, 3, rotated // 2, rotated, 1))
    left = insert(ops.sub.Tensor, (insert(ops.mul.Tensor, (a, cos)), insert(ops.mul.Tensor, (b, sin))))
    right = insert(ops.add.Tensor, (insert(ops.mul.Tensor, (b, cos)), insert(ops.mul.Tensor, (a, sin))))
    if call.interleaved:
        pairs = insert(ops.stack.default, ([left, right], -1))
        parts = [insert(ops.flatten.using_ints, (pairs, 3, 4))]
    else:
        parts = [left, right]
    if rotated < size:
        parts.append(insert(ops.slice.Tensor, (call.x, 3, rotated, size)))
    return insert(ops.cat.default, (parts, 3))


@dataclass(frozen=True)
class Norms(Pass):
    """A pass that rewrites RMSNorm.

    Given:   y = specc.rms_norm(x, weight, eps)
    Result:  y = rms_norm(x, [size], weight, eps)
    """

    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        def norm(node: Node) -> Node:
            x, weight = node_arg(node, 0), node_arg(node, 1)
            return graph.graph.call_function(ops.rms_norm.default, (x, shape(weight), weight, float_arg(node, 2)))

        return swap_each(graph, RMS_NORM, norm)
