"""Attention of a whole sequence to attention over a cache."""

from __future__ import annotations

import operator
from dataclasses import dataclass

import torch
from torch.fx import GraphModule

from specc.runtime.errors import PassError

from .find import ATTENTION, CACHED, aten, calls, new_input, outputs, placeholder, set_outputs


@dataclass(frozen=True)
class LowerAttention:
    """The cache comes in and goes out with the slots' rows written; which slots see which is an input.

    Given:   out = specc.attention(q, k, v, …)
    Result:  out, present.L.key, present.L.value = specc.cached_attention(
                 q, k, v, past_key_values.L.key, past_key_values.L.value, past_len, mask, positions, …)
             position_ids = past_len + depth

    Inputs added: `past_len` [1] int64, `mask` [slots, span] bool, `depth` [slots] int64, and for each layer L
    `past_key_values_L_key` and `_value` [1, heads, capacity, size]. A window that the capacity never fills is none.
    """

    capacity: int

    def __call__(self, graph: GraphModule) -> int:
        attention = calls(graph, ATTENTION)
        past_len = new_input(graph, "past_len", torch.zeros(1, dtype=torch.long))
        mask = new_input(graph, "mask", torch.ones(2, 2, dtype=torch.bool))
        depth = new_input(graph, "depth", torch.arange(2))
        position_ids = placeholder(graph, "position_ids")
        with graph.graph.inserting_after(depth):
            line = graph.graph.call_function(aten.add.Tensor, (past_len, depth))
        with graph.graph.inserting_after(line):
            positions = graph.graph.call_function(aten.unsqueeze.default, (line, 0))
        positions.meta = dict(position_ids.meta)
        position_ids.replace_all_uses_with(positions)
        graph.graph.erase_node(position_ids)
        named = outputs(graph)
        for node in attention:
            query, key, value, sinks, scale, window, softcap, layer = node.args
            pasts = []
            for name, tensor in (("key", key), ("value", value)):
                _, heads, _, size = tensor.meta["val"].shape
                if f"past_key_values_{layer}_{name}" in (n.name for n in graph.graph.nodes):
                    raise PassError(f"layer {layer} attends twice; specc keeps one cache a layer")
                pasts.append(
                    new_input(graph, f"past_key_values_{layer}_{name}", torch.zeros(1, heads, self.capacity, size))
                )
            window = window if window < self.capacity else 0
            with graph.graph.inserting_before(node):
                args = (query, key, value, *pasts, past_len, mask, positions, sinks, scale, window, softcap, layer)
                new = graph.graph.call_function(CACHED, args)
                new.meta = dict(node.meta)
                out, *presents = (graph.graph.call_function(operator.getitem, (new, i)) for i in range(3))
            out.meta = dict(node.meta)
            node.replace_all_uses_with(out)
            graph.graph.erase_node(node)
            named |= {f"present.{layer}.{n}": p for n, p in zip(("key", "value"), presents, strict=True)}
        set_outputs(graph, named)
        return len(attention)
