"""Lower attention of a whole sequence to attention over a cache."""

from __future__ import annotations

import operator
from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

from specc.runtime.errors import PassError

from .arguments import AttentionCall
from .find import ATTENTION, CACHED, aten, calls, new_input, nodes, outputs, placeholder, set_outputs
from .protocol import Pass


@dataclass(frozen=True)
class LowerAttention(Pass):
    """A pass that makes slots attend to a cache and write their own rows into it.

    Given:   out = specc.attention(q, k, v, …)
    Result:  out, present.L.key, present.L.value = specc.cached_attention(
                 q, k, v, past_key_values.L.key, past_key_values.L.value, past_len, mask, positions, …)
             position_ids = past_len + depth

    Inputs added: `past_len` [1] int64, `mask` [slots, span] bool, `depth` [slots] int64, and for each layer L
    `past_key_values_L_key` and `_value` [1, heads, capacity, size]. A window that the capacity never fills is dropped.
    Of a trained head without attention the positions alone change.
    """

    capacity: int

    def __call__(self, graph: GraphModule) -> int:
        attentions = calls(graph, ATTENTION)
        past_len = new_input(graph, "past_len", torch.zeros(1, dtype=torch.long))
        mask = new_input(graph, "mask", torch.ones(2, 2, dtype=torch.bool))
        positions = self._positions(graph, past_len)
        named = outputs(graph)
        for node in attentions:
            call = AttentionCall.of(node)
            pasts = [self._past(graph, call.layer, "key", call.key), self._past(graph, call.layer, "value", call.value)]
            window = call.window if call.window < self.capacity else 0
            heads, how = (call.query, call.key, call.value), (call.sinks, call.scale, window, call.softcap, call.layer)
            with graph.graph.inserting_before(node):
                new = graph.graph.call_function(CACHED, (*heads, *pasts, past_len, mask, positions, *how))
                new.meta = dict(node.meta)
                out, keys, values = (graph.graph.call_function(operator.getitem, (new, i)) for i in range(3))
            out.meta = dict(node.meta)
            node.replace_all_uses_with(out)
            graph.graph.erase_node(node)
            named |= {f"present.{call.layer}.key": keys, f"present.{call.layer}.value": values}
        set_outputs(graph, named)
        return len(attentions) or 1

    def _positions(self, graph: GraphModule, past_len: Node) -> Node:
        """Replace the input `position_ids` by the sum of `past_len` and a new input `depth`; return the sum [1, N]."""
        depth = new_input(graph, "depth", torch.arange(2))
        position_ids = placeholder(graph, "position_ids")
        with graph.graph.inserting_after(depth):
            line = graph.graph.call_function(aten.add.Tensor, (past_len, depth))
        with graph.graph.inserting_after(line):
            positions = graph.graph.call_function(aten.unsqueeze.default, (line, 0))
        positions.meta = dict(position_ids.meta)
        position_ids.replace_all_uses_with(positions)
        graph.graph.erase_node(position_ids)
        return positions

    def _past(self, graph: GraphModule, layer: int, kind: str, rows: Node) -> Node:
        """Add the input for a layer's cache of "key" or "value". Raises PassError if the layer has it already."""
        name = f"past_key_values_{layer}_{kind}"
        if name in {node.name for node in nodes(graph)}:
            raise PassError(f"layer {layer} attends twice; specc keeps one cache a layer")
        _, heads, _, size = rows.meta["val"].shape
        return new_input(graph, name, torch.zeros(1, heads, self.capacity, size))
