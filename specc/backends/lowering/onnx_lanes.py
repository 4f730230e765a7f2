"""Lower attention of several lanes to one GroupQueryAttention for each lane, between a Split and a Concat."""

from __future__ import annotations

import math
import operator
from dataclasses import dataclass

import onnx_ir as ir
import torch
from torch.fx import GraphModule, Node

from specc.backends.lowering.emit import emit, emit_several, hand_on_heads, shape
from specc.backends.lowering.lane_parts import LaneParts
from specc.backends.lowering.masks import Biases
from specc.backends.lowering.onnx_group_query import (
    GROUP_QUERY,
    common_rotation,
    group_query_attributes,
    group_query_inputs,
    packed_heads,
)
from specc.passes import Pass
from specc.passes.arguments import LanesAttentionCall, RotaryCall, int_arg
from specc.passes.find import LANES, aten, calls, constant


@dataclass(frozen=True)
class GroupQueryLanes(Pass):
    """A rewrite of attention of several lanes to one node for each lane.

    A chain of any width needs no bias. For other topologies every lane has as many slots, and a bias. The operator
    takes no lane without slots, so idle ones, which come last, get a row of zeros each behind all slots.

    Given:   q, k, v = transpose(view(…));  out, *caches = specc.lanes_attention(rotary(q), rotary(k), v, …)
    Result:  heads.0, heads.1, … = Split(pad(heads), max(widths, 1))   heads being q, k and v side by side, or each one
             out.0, *caches.0 = GroupQueryAttention(heads.0, …);  out.1, *caches.1 = …
             out = concat(out.0, out.1, …)[:, :slots]                  on [1, slots, heads * size]
    """

    slots: int

    def __call__(self, graph: GraphModule) -> int:
        attentions = calls(graph, LANES)
        shared: _Shared | None = None
        for node in attentions:
            call = LanesAttentionCall.of(node)
            with graph.graph.inserting_before(node):
                shared = shared or _Shared(graph, call, self.slots // call.lanes)
                out, caches = self._attention(graph, call, shared)
            for item in list(node.users):
                number = int_arg(item, 1)
                if number == 0:
                    hand_on_heads(graph, item, out)
                else:
                    item.replace_all_uses_with(caches[number - 1])
        return len(attentions)

    def _attention(self, graph: GraphModule, call: LanesAttentionCall, shared: _Shared) -> tuple[Node, list[Node]]:
        """Insert the operators for one call; return the output and the caches of all lanes."""
        g, turn = graph.graph, common_rotation(call.query, call.key)
        packed, sizes = packed_heads(graph, call, turn), [math.prod(shape(h)[1::2]) for h in _heads(call)]
        sizes[0] = sum(sizes) if packed[1] is None else sizes[0]
        parts = [self._split(graph, *flat, call, shared) for flat in zip(packed, sizes, strict=True)]
        outs: list[Node] = []
        caches: list[Node] = []
        for lane in range(call.lanes):
            new = self._lane(graph, call, lane, turn, [part[lane] for part in parts], shared)
            out, *rows = (g.call_function(operator.getitem, (new, i)) for i in range(3))
            outs.append(out)
            caches += rows
        out = g.call_function(aten.cat.default, (outs, 1))
        if shared.slots_in_use is not None:
            start, axis = (constant(graph, f"ints_{i}", torch.tensor([i])) for i in (0, 1))
            size = math.prod(shape(call.query)[1::2])
            out = emit(g, "Slice", [out, start, shared.slots_in_use, axis], [1, self.slots, size])
        return out, caches

    def _lane(
        self,
        graph: GraphModule,
        call: LanesAttentionCall,
        lane: int,
        turn: RotaryCall | None,
        packed: list[Node | None],
        shared: _Shared,
    ) -> Node:
        """Insert the operator for one lane. `packed` are its heads, as `group_query_inputs` takes them."""
        (_, heads, _, size), (past_key, past_value) = shape(call.query), call.pasts[2 * lane : 2 * lane + 2]
        bias, positions = shared.bias(call, lane)
        inputs = group_query_inputs(
            packed=packed,
            past_key=past_key,
            past_value=past_value,
            seqlens_k=shared.last_rows[lane],
            total_sequence_length=shared.totals[lane],
            cos_cache=turn.cos if turn else None,
            sin_cache=turn.sin if turn else None,
            position_ids=positions,
            attention_bias=bias,
            head_sink=call.sinks,
        )
        shapes = [[1, self.slots // call.lanes, heads * size], shape(past_key), shape(past_value)]
        return emit_several(graph.graph, GROUP_QUERY, inputs, shapes, **group_query_attributes(call, turn, bias))

    def _split(
        self, graph: GraphModule, heads: Node | None, size: int, call: LanesAttentionCall, shared: _Shared
    ) -> list[Node | None]:
        """Split heads [1, slots, size] by the widths of the lanes; return a part for each, or a None for each."""
        if heads is None:
            return [None] * call.lanes
        sizes = [[1, self.slots // call.lanes, size] for _ in range(call.lanes)]
        if shared.slots_in_use is not None:
            heads = graph.graph.call_function(aten.constant_pad_nd.default, (heads, [0, 0, 0, call.lanes], 0.0))
            sizes.append([1, call.lanes, size])  # rows of zeros that are left over
        split = emit_several(graph.graph, "Split", [heads, shared.parts], sizes, axis=1)
        return [graph.graph.call_function(operator.getitem, (split, lane)) for lane in range(call.lanes)]


def _heads(call: LanesAttentionCall) -> tuple[Node, Node, Node]:
    return call.query, call.key, call.value


class _Shared:
    """The inputs of attention that all layers share: each lane's two lengths, and a bias for each window.

    Attributes:
        last_rows: For each lane `seqlens_k` [1] int32, the index of the last row in use.
        totals: For each lane `total_sequence_length` [] int32, the number of rows in use.
        parts: The sizes [lanes] int64 by which heads are split; for chains a last one is what is left over.
        slots_in_use: The slots of all lanes [1] int64, without rows for idle ones; None if no lane can be idle.
    """

    def __init__(self, graph: GraphModule, call: LanesAttentionCall, slots: int) -> None:
        g, lanes = graph.graph, range(call.lanes)
        widths = self.parts = call.widths
        self.slots_in_use: Node | None = None
        if call.mask is None:
            widths = g.call_function(aten.clamp.default, (call.widths, 1))
            spare = g.call_function(aten.sub.Tensor, (g.call_function(aten.add.Tensor, (call.widths, 1)), widths))
            left = g.call_function(aten.sum.dim_IntList, (spare, [0], True))
            self.parts = g.call_function(aten.cat.default, ([widths, left],))
            self.slots_in_use = g.call_function(aten.sum.dim_IntList, (call.widths, [0], True))
        total = g.call_function(aten.add.Tensor, (call.past_len, widths))
        total = emit(g, "Cast", [total], [call.lanes], torch.int32, to=int(ir.DataType.INT32))
        last = g.call_function(aten.sub.Tensor, (total, 1))
        self.last_rows = [g.call_function(aten.slice.Tensor, (last, 0, lane, lane + 1)) for lane in lanes]
        self.totals = [g.call_function(aten.select.int, (total, 0, lane)) for lane in lanes]
        self._parts = LaneParts(graph, slots)
        self._biases = [Biases(graph, slots) for _ in lanes]

    def bias(self, call: LanesAttentionCall, lane: int) -> tuple[Node | None, Node | None]:
        """Return a lane's bias and the positions of its slots; None for both if it is a chain."""
        if call.mask is None:
            return None, None
        own = self._parts.call(call, lane, with_heads=False)
        return self._biases[lane].bias(own), own.positions
