"""The lowering to torch's own operators, for what compiles torch graphs.

N  slots      C  capacity
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.fx import GraphModule, Node

from specc.backends.lowering.onnx_fast import shape, shape_at, swap
from specc.backends.lowering.onnx_portable import Masks, written_out
from specc.passes import Pass
from specc.passes.find import CACHED, calls, constant, outputs, set_outputs
from specc.passes.find import aten as ops
from specc.passes.fuse_rotary import ROTARY

RMS_NORM = torch.ops.specc.rms_norm.default


def lowering(slots: int, in_place: bool = True) -> list[Pass]:
    """`in_place`: caches are inputs that are written; else they are read, and the slots' rows are outputs."""
    return [Attend(slots, in_place), Turns(), Norms()]


@dataclass(frozen=True)
class Attend:
    """
    Given:   out, keys, values = specc.cached_attention(q, k, v, past_key, past_value, past_len, mask, …)
    Result:  keys = index_copy_(past_key, 2, past_len + [0 … N), k);  values likewise
             out = scaled_dot_product_attention(q, keys, values, seen)    heads that share keys as more slots

    Outputs `present.*` go: a cache is written where it lies. Not in place it stays as it is, and instead of them there
    are rows.L.key and rows.L.value [1, heads, N, size]:
             keys = cat(past_key, k);  values likewise
             seen = cat(seen of the rows in use, seen at past_len + [0 … N))
    """

    slots: int
    in_place: bool = True

    def __call__(self, graph: GraphModule) -> int:
        found, call = calls(graph, CACHED), graph.graph.call_function
        masks = Masks(graph, self.slots, shape(found[0].args[3])[2])
        rows: Node | None = None
        written: dict[str, Node] = {}
        beside: dict[Node, Node] = {}
        grouped: dict[tuple[Node, int], Node] = {}
        for node in found:
            query, key, value, past_key, past_value, past_len, mask, positions, *how, layer = node.args
            sinks, scale, window, cap = how
            (_, heads, slots, size), kv_heads = shape_at(query, self.slots), shape(past_key)[1]
            with graph.graph.inserting_before(node):
                if rows is None:
                    rows = call(ops.add.Tensor, (past_len, constant(graph, "slots", torch.arange(self.slots))))
                seen, cache = masks.seen(mask, past_len, positions, window), shape(past_key)
                if self.in_place:
                    keys, values = (
                        call(ops.index_copy_.default, (past, 2, rows, new))
                        for past, new in ((past_key, key), (past_value, value))
                    )
                else:
                    keys, values = (call(ops.cat.default, (pair, 2)) for pair in ([past_key, key], [past_value, value]))
                    cache[2] += self.slots
                    if seen not in beside:
                        beside[seen] = self._beside(graph, seen, past_len, rows, masks.capacity)
                    seen = beside[seen]
                written |= {f"rows.{layer}.key": key, f"rows.{layer}.value": value}
                if cap or sinks is not None:
                    out = written_out(graph, self.slots, query, keys, values, cache, seen, sinks, scale, cap)
                else:
                    if (seen, heads // kv_heads) not in grouped:
                        wide = call(ops.repeat.default, (seen, [1, 1, heads // kv_heads, 1]))
                        grouped[seen, heads // kv_heads] = wide
                    many = call(ops.reshape.default, (query, [1, kv_heads, heads // kv_heads * slots, size]))
                    attend = (many, keys, values, grouped[seen, heads // kv_heads], 0.0, False)
                    out = graph.graph.call_function(ops.scaled_dot_product_attention.default, attend, {"scale": scale})
                    out = call(ops.reshape.default, (out, [1, heads, slots, size]))
            for item in list(node.users):
                assert item.target is operator.getitem
                new = (out, keys, values)[item.args[1]]
                new.meta = dict(item.meta)
                item.replace_all_uses_with(new)
        named = {name: n for name, n in outputs(graph).items() if not name.startswith("present.")}
        set_outputs(graph, named if self.in_place else named | written)
        return len(found)

    def _beside(self, graph: GraphModule, seen: Node, past_len: Node, rows: Node, capacity: int) -> Node:
        """What is seen of the cache, and behind it what is seen of the slots."""
        call = graph.graph.call_function
        used = call(ops.lt.Tensor, (constant(graph, "cached", torch.arange(capacity)), past_len))
        parts = [call(ops.logical_and.default, (seen, used)), call(ops.index_select.default, (seen, 3, rows))]
        return call(ops.cat.default, (parts, 3))


@dataclass(frozen=True)
class Turns:
    """
    Given:   y = specc.rotary(x, cos, sin, positions, interleaved)
    Result:  y = cat(a * c - b * s, b * c + a * s, rest)           c, s being the tables at the positions
    """

    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        found, call = calls(graph, ROTARY), graph.graph.call_function
        angles: dict[tuple[Node, ...], list[Node]] = {}
        for node in found:
            x, cos, sin, positions, interleaved = node.args
            half, size = shape(cos)[1], shape(x)[3]
            with graph.graph.inserting_before(node):
                if (cos, sin, positions) not in angles:
                    row = call(ops.squeeze.dims, (positions, [0]))
                    angles[cos, sin, positions] = [call(ops.index_select.default, (t, 0, row)) for t in (cos, sin)]
                c, s = angles[cos, sin, positions]
                first, step = (1, 2) if interleaved else (half, 1)
                a = call(ops.slice.Tensor, (x, 3, 0, 2 * half if interleaved else half, step))
                b = call(ops.slice.Tensor, (x, 3, first, 2 * half, step))
                left, right = (
                    call(kind, (call(ops.mul.Tensor, (p, c)), call(ops.mul.Tensor, (q, s))))
                    for kind, p, q in ((ops.sub.Tensor, a, b), (ops.add.Tensor, b, a))
                )
                if interleaved:
                    pairs = call(ops.stack.default, ([left, right], -1))
                    parts = [call(ops.flatten.using_ints, (pairs, 3, 4))]
                else:
                    parts = [left, right]
                rest = [call(ops.slice.Tensor, (x, 3, 2 * half, size))] if 2 * half < size else []
                new = call(ops.cat.default, ([*parts, *rest], 3))
            swap(node, new)
        return len(found)


@dataclass(frozen=True)
class Norms:
    """
    Given:   y = specc.rms_norm(x, weight, eps)
    Result:  y = rms_norm(x, [size], weight, eps)
    """

    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        found = calls(graph, RMS_NORM)
        for node in found:
            x, weight, eps = node.args
            with graph.graph.inserting_before(node):
                new = graph.graph.call_function(ops.rms_norm.default, (x, shape(weight), weight, eps))
            swap(node, new)
        return len(found)
