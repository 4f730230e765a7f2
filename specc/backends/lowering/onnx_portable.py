"""The lowering in standard ONNX operators of opset 24 alone: what any runtime of that standard runs.

TensorScatter writes the slots' rows into the cache, Attention reads the whole of it under a boolean mask, so that no
shape depends on how much is in use. Scores that Attention has no words for (it caps masked ones too, and knows no
sinks) are written out.

N  slots      C  capacity      T  span of the mask
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch.fx import GraphModule, Node

from specc.backends.lowering.onnx_fast import Norms, emit, shape, shape_at, swap
from specc.passes import Pass
from specc.passes.find import CACHED, aten, calls, constant, outputs, set_outputs, weight
from specc.passes.fuse_rotary import ROTARY

HIDDEN = -1e4  # a score that no softmax sees, in any float type


def lowering(slots: int, dtype: torch.dtype = torch.float32, rows: bool = False) -> list[Pass]:
    """`rows`: the rows that the slots write are outputs too, rows.L.key and rows.L.value [1, heads, N, size]."""
    return [Scatter(slots, dtype, rows), Rotary(slots, dtype), Norms(slots, dtype), Linears(slots, dtype)]


@dataclass(frozen=True)
class Linears:
    """
    Given:   y = linear(x, weight, bias)
    Result:  y = reshape(Gemm(reshape(x), weight, bias, transB=1))
    """

    slots: int
    dtype: torch.dtype

    def __call__(self, graph: GraphModule) -> int:
        found, g = calls(graph, aten.linear.default), graph.graph
        for node in found:
            x, matrix, bias = (*node.args, None)[:3]
            *rows, width = shape_at(node, self.slots)
            with g.inserting_before(node):
                flat = x if len(rows) == 1 else g.call_function(aten.reshape.default, (x, [-1, shape(matrix)[1]]))
                inputs = [flat, matrix] if bias is None else [flat, matrix, bias]
                count = int(torch.tensor(rows).prod())
                new = emit(g, "Gemm", inputs, [count, width], self.dtype, transB=1)
                new.meta["nn_module_stack"] = node.meta.get("nn_module_stack")
                new = new if len(rows) == 1 else g.call_function(aten.reshape.default, (new, [*rows, width]))
            swap(node, new)
        return len(found)


@dataclass(frozen=True)
class Rotary:
    """
    Given:   y = specc.rotary(x, cos, sin, positions, interleaved)
    Result:  y = RotaryEmbedding(x, cos, sin, positions)
    """

    slots: int
    dtype: torch.dtype
    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        found = calls(graph, ROTARY)
        for node in found:
            x, cos, sin, positions, interleaved = node.args
            rotated = 2 * shape(cos)[1]
            partial = {"rotary_embedding_dim": rotated} if rotated < shape(x)[3] else {}
            with graph.graph.inserting_before(node):
                new = emit(
                    graph.graph, "RotaryEmbedding", [x, cos, sin, positions], shape_at(node, self.slots), self.dtype,
                    interleaved=int(interleaved), **partial,
                )  # fmt: skip
            swap(node, new)
        return len(found)


@dataclass(frozen=True)
class Scatter:
    """
    Given:   out, keys, values = specc.cached_attention(q, k, v, past_key, past_value, past_len, mask, …)
    Result:  keys = TensorScatter(past_key, k, past_len);  values = TensorScatter(past_value, v, past_len)
             out = Attention(q, keys, values, seen)              seen [1, 1, N, C] bool, one for all layers of a window
    """

    slots: int
    dtype: torch.dtype
    rows: bool = False

    def __call__(self, graph: GraphModule) -> int:
        found, written = calls(graph, CACHED), {}
        masks = Masks(graph, self.slots, shape(found[0].args[3])[2] if found else 0)
        for node in found:
            query, key, value, past_key, past_value, past_len, mask, positions, *how, layer = node.args
            sinks, scale, window, cap = how
            g = graph.graph
            with g.inserting_before(node):
                keys, values = (
                    emit(g, "TensorScatter", [past, new, past_len], shape(past), self.dtype, axis=-2, mode="linear")
                    for past, new in ((past_key, key), (past_value, value))
                )
                seen = masks.seen(mask, past_len, positions, window)
                if cap or sinks is not None:
                    out = written_out(graph, self.slots, query, keys, values, shape(past_key), seen, sinks, scale, cap)
                else:
                    size = shape_at(query, self.slots)
                    out = emit(g, "Attention", [query, keys, values, seen], size, self.dtype, scale=scale)
            written |= {f"rows.{layer}.key": key, f"rows.{layer}.value": value}
            for item in list(node.users):
                assert item.target is operator.getitem
                new = (out, keys, values)[item.args[1]]
                new.meta = dict(item.meta) | {"nn_module_stack": node.meta.get("nn_module_stack")}
                item.replace_all_uses_with(new)
        if self.rows:
            set_outputs(graph, outputs(graph) | written)
        return len(found)


def written_out(
    graph: GraphModule, slots: int, query: Node, keys: Node, values: Node, cache: list[int], seen: Node,
    sinks: Node | None, scale: float, cap: float,
) -> Node:  # fmt: skip
    """Capped scores, and sinks that take their share of the softmax; heads that share keys are one product."""
    call = graph.graph.call_function
    (_, heads, _, size), (_, kv_heads, capacity, _) = shape_at(query, slots), cache
    grouped = call(aten.reshape.default, (query, [1, kv_heads, heads // kv_heads * slots, size]))
    scores = call(aten.matmul.default, (grouped, call(aten.transpose.int, (keys, 2, 3))))
    scores = call(aten.mul.Tensor, (scores, scale))
    if cap:
        scores = call(aten.mul.Tensor, (call(aten.tanh.default, (call(aten.div.Tensor, (scores, cap)),)), cap))
    scores = call(aten.reshape.default, (scores, [1, heads, slots, capacity]))
    scores = call(aten.where.ScalarOther, (seen, scores, HIDDEN))
    if sinks is not None:
        column = call(aten.expand.default, (call(aten.view.default, (sinks, [1, -1, 1, 1])), [1, heads, slots, 1]))
        scores = call(aten.cat.default, ([scores, column], -1))
    weights = call(aten.softmax.int, (scores, -1))
    if sinks is not None:
        weights = call(aten.slice.Tensor, (weights, 3, 0, capacity))
    weights = call(aten.reshape.default, (weights, [1, kv_heads, heads // kv_heads * slots, capacity]))
    out = call(aten.matmul.default, (weights, values))
    return call(aten.reshape.default, (out, [1, heads, slots, size]))


@dataclass
class Masks:
    """One mask for each window, shared by all layers."""

    graph: GraphModule
    slots: int
    capacity: int
    made: dict[int, Node] = field(default_factory=dict)

    def seen(self, mask: Node, past_len: Node, positions: Node, window: int) -> Node:
        """[1, 1, N, C] bool: all rows before the last T in use, and what `mask` [N, T] shows of those."""
        if window in self.made:
            return self.made[window]
        call, span = self.graph.graph.call_function, shape(mask)[1]
        rows = constant(self.graph, "rows", torch.arange(self.capacity)[None])
        own = call(aten.transpose.int, (positions, 0, 1))
        held = weight(self.graph, mask) if mask.op == "get_attr" else None
        if held is not None and torch.equal(held, torch.ones_like(held).tril()):
            seen = call(aten.le.Tensor, (rows, own))
            place = rows
        else:
            start = call(aten.add.Tensor, (past_len, self.slots - span))
            after = call(aten.sub.Tensor, (rows, start))
            index = call(aten.squeeze.dims, (call(aten.clamp.default, (after, 0, span)), [0]))
            nothing = constant(self.graph, "no_slots", torch.zeros(self.slots, 1, dtype=torch.bool))
            table = call(aten.cat.default, ([mask, nothing], 1))
            before = call(aten.lt.Scalar, (after, 0))
            seen = call(aten.logical_or.default, (before, call(aten.index_select.default, (table, 1, index))))
            place = rows
            if window and span == self.slots:  # what the slots' rows hold stands at the slots' positions
                last = constant(self.graph, "no_position", torch.zeros(1, 1, dtype=torch.long))
                stands = call(aten.index_select.default, (call(aten.cat.default, ([positions, last], 1)), 1, index))
                place = call(aten.where.self, (before, rows, stands))
        if window:
            near = call(aten.lt.Scalar, (call(aten.sub.Tensor, (own, place)), window))
            seen = call(aten.logical_and.default, (seen, near))
        self.made[window] = call(aten.view.default, (seen, [1, 1, self.slots, self.capacity]))
        return self.made[window]
