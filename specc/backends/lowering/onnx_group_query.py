"""Lower attention to GroupQueryAttention, a contrib operator of ONNX Runtime.

It updates past and present in place where both are one buffer, reads only the rows in use, turns queries and keys
itself, and takes a tree as a bias. (Its own mask is causal over the slots, so parents must stand before children.)
The operator is described in docs/ContribOperators.md of ONNX Runtime.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir
import torch
from torch.fx import GraphModule, Node

from specc.backends.lowering.emit import (
    count_slots,
    emit,
    emit_several,
    flat_heads,
    hand_on_results,
    shape,
    whole_of_heads,
)
from specc.backends.lowering.masks import Biases, is_causal
from specc.passes import Pass
from specc.passes.arguments import CachedAttentionCall, LanesAttentionCall, RotaryCall, node_arg
from specc.passes.find import CACHED, ROTARY, aten, calls

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
