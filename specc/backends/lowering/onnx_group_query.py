"""Lower attention to GroupQueryAttention, a contrib operator of ONNX Runtime: one node, or one for each lane.

It updates past and present in place where both are one buffer, reads only the rows in use, turns queries and keys
itself, and takes a tree as a bias. (Its own mask is causal over the slots, so parents must stand before children.)
The operator is described in docs/ContribOperators.md of ONNX Runtime.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import onnx_ir as ir
import torch
from torch.fx import GraphModule, Node

from specc.backends.lowering.emit import (
    count_slots,
    emit,
    emit_several,
    flat_heads,
    hand_on_heads,
    hand_on_results,
    shape,
    whole_of_heads,
)
from specc.backends.lowering.masks import Biases, LaneParts, is_causal
from specc.passes import Pass
from specc.passes.arguments import CachedAttentionCall, LanesAttentionCall, RotaryCall, int_arg, node_arg
from specc.passes.find import CACHED, LANES, ROTARY, aten, calls, constant

GROUP_QUERY = "com.microsoft::GroupQueryAttention"
ROTATED_MULTIPLE = 8  # pairs: the operator turns a multiple of 16 sizes


@dataclass(frozen=True)
class GroupQuery(Pass):
    """A pass that rewrites attention to one node, with the tree as a bias.

    Without a bias the operator knows itself where the slots of a chain stand.

    Given:   q, k, v = transpose(view(…));  out, keys, values = specc.cached_attention(rotary(q), rotary(k), v, …)
    Result:  out, keys, values = GroupQueryAttention(…)   on [1, slots, heads * size]
    """

    slots: int
    any_width: bool = False
    optional: ClassVar[bool] = True  # A trained head may have no attention.

    def __call__(self, graph: GraphModule) -> int:
        attentions = calls(graph, CACHED)
        shared = _Shared(graph, self.slots, self.any_width)
        for node in attentions:
            with graph.graph.inserting_before(node):
                new = self._attention(graph, CachedAttentionCall.of(node), shared)
            hand_on_results(graph, node, new)
        return len(attentions)

    def _attention(self, graph: GraphModule, call: CachedAttentionCall, shared: _Shared) -> Node:
        """Insert the operator for one call."""
        _, heads, _, size = shape(call.query)
        turn = common_rotation(call.query, call.key)
        bias = shared.bias(call)
        seqlens_k, total_sequence_length = shared.lengths(call.past_len)
        inputs = group_query_inputs(
            packed=packed_heads(graph, call, turn),
            past_key=call.past_key,
            past_value=call.past_value,
            seqlens_k=seqlens_k,
            total_sequence_length=total_sequence_length,
            cos_cache=turn.cos if turn else None,
            sin_cache=turn.sin if turn else None,
            position_ids=call.positions if bias else None,
            attention_bias=bias,
            head_sink=call.sinks,
        )
        shapes = [[1, self.slots, heads * size], shape(call.past_key), shape(call.past_value)]
        attributes = group_query_attributes(call, turn, bias)
        return emit_several(graph.graph, GROUP_QUERY, inputs, shapes, **attributes)


def group_query_attributes(
    call: CachedAttentionCall | LanesAttentionCall, turn: RotaryCall | None, bias: Node | None
) -> dict[str, Any]:
    """Return the attributes of GroupQueryAttention.

    Args:
        call: The call that it replaces.
        turn: The rotation that the operator takes over, if any.
        bias: The bias, if the slots are not a chain. It holds the window too.
    """
    attributes: dict[str, Any] = {
        "num_heads": shape(call.query)[1],
        "kv_num_heads": shape(call.key)[1],
        "scale": call.scale,
        "softcap": call.softcap,
    }
    if turn is not None:
        attributes |= {"do_rotary": 1, "rotary_interleaved": int(turn.interleaved)}
    if call.window and bias is None:
        attributes["local_window_size"] = call.window
    return attributes


def group_query_inputs(
    *,
    packed: Sequence[Node | None],
    past_key: Node,
    past_value: Node,
    seqlens_k: Node,
    total_sequence_length: Node,
    cos_cache: Node | None,
    sin_cache: Node | None,
    position_ids: Node | None,
    attention_bias: Node | None,
    head_sink: Node | None,
) -> list[Node | None]:
    """Return the inputs of GroupQueryAttention in the operator's order, without those that are left out at the end.

    Args:
        packed: Query, key and value; or one value that holds all three, None, None.
        past_key: [1, kv heads, capacity, size].
        past_value: [1, kv heads, capacity, size].
        seqlens_k: [1] int32, the index of the last row in use.
        total_sequence_length: [] int32, the number of rows in use.
        cos_cache: [positions, R / 2], if the operator turns queries and keys.
        sin_cache: [positions, R / 2], if the operator turns queries and keys.
        position_ids: [1, slots] int64; needed with a bias only.
        attention_bias: [1, 1, slots, rows in use].
        head_sink: [heads].
    """
    inputs = [*packed, past_key, past_value, seqlens_k, total_sequence_length]
    inputs += [cos_cache, sin_cache, position_ids, attention_bias, head_sink]
    while inputs[-1] is None:
        inputs.pop()
    return inputs


def common_rotation(query: Node, key: Node) -> RotaryCall | None:
    """Return the rotation that the operator can take over: both turn by one table, 16 n sizes of heads of 16 m."""
    if query.target is not ROTARY or key.target is not ROTARY or query.args[1:] != key.args[1:]:
        return None
    call = RotaryCall.of(query)
    possible = shape(query)[3] % (2 * ROTATED_MULTIPLE) == 0 and shape(call.cos)[1] % ROTATED_MULTIPLE == 0
    return call if possible else None


@dataclass
class _Shared:
    """The inputs of attention that all layers share: the two lengths, and a bias for each window."""

    graph: GraphModule
    slots: int
    any_width: bool
    causal: dict[Node, bool] = field(default_factory=dict)
    both_lengths: tuple[Node, Node] | None = None

    def __post_init__(self) -> None:
        self.biases = Biases(self.graph, self.slots)

    def bias(self, call: CachedAttentionCall) -> Node | None:
        """Return the bias for a call, or None if its slots are a chain."""
        if call.mask not in self.causal:
            self.causal[call.mask] = is_causal(self.graph, call.mask)
        return None if self.causal[call.mask] else self.biases.bias(call)

    def lengths(self, past_len: Node) -> tuple[Node, Node]:
        """Return `seqlens_k` [1], the last row's index, and `total_sequence_length` [], both int32."""
        if self.both_lengths is None:
            g = self.graph.graph
            slots = count_slots(self.graph) if self.any_width else self.slots
            total = g.call_function(aten.add.Tensor, (past_len, slots))
            total = emit(g, "Cast", [total], [1], torch.int32, to=int(ir.DataType.INT32))
            last = g.call_function(aten.sub.Tensor, (total, 1))
            self.both_lengths = last, g.call_function(aten.squeeze.default, (total,))
        return self.both_lengths


def packed_heads(
    graph: GraphModule, call: CachedAttentionCall | LanesAttentionCall, turn: RotaryCall | None
) -> list[Node | None]:
    """Return [whole, None, None] if queries, keys and values are all of `whole`, in this order; else the three.

    Args:
        graph: Where to insert what makes them flat, [1, slots, heads * size].
        call: The call whose heads they are.
        turn: The rotation that the operator takes over, if any; the heads are those before it.
    """
    query, key = call.query, call.key
    if turn is not None:
        query, key = node_arg(query, 0), node_arg(key, 0)
    flat = [flat_heads(graph, head) for head in (query, key, call.value)]
    whole = whole_of_heads(flat)
    return [*flat] if whole is None else [whole, None, None]


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
        shared: _AllLanes | None = None
        for node in attentions:
            call = LanesAttentionCall.of(node)
            with graph.graph.inserting_before(node):
                shared = shared or _AllLanes(graph, call, self.slots // call.lanes)
                out, caches = self._attention(graph, call, shared)
            for item in list(node.users):
                number = int_arg(item, 1)
                if number == 0:
                    hand_on_heads(graph, item, out)
                else:
                    item.replace_all_uses_with(caches[number - 1])
        return len(attentions)

    def _attention(self, graph: GraphModule, call: LanesAttentionCall, shared: _AllLanes) -> tuple[Node, list[Node]]:
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
        shared: _AllLanes,
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
        self, graph: GraphModule, heads: Node | None, size: int, call: LanesAttentionCall, shared: _AllLanes
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


class _AllLanes:
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
