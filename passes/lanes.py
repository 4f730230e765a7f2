"""Run several sequences in one call, each over a cache of its own."""

from __future__ import annotations

import operator
from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

from specc.runtime.block import Frontier, Parents
from specc.runtime.tree import Tree

from .arguments import CachedAttentionCall, int_arg, node_arg
from .find import CACHED, LANES, aten, calls, constant, first_call, new_input, outputs, placeholder, set_outputs
from .protocol import Pass


@dataclass(frozen=True)
class Lanes(Pass):
    """A rewrite of one sequence's slots to those of several lanes, which stand in one line.

    Given:   out, present.L.… = specc.cached_attention(q, k, v, past_key_values.L.…, past_len, mask, positions, …)
             positions = past_len + depth
    Result:  out, present.0.L.…, present.1.L.… = specc.lanes_attention(
                 q, k, v, [past_key_values.0.L.…, past_key_values.1.L.…], past_len, widths, mask, positions, …)
             positions = past_len[lane] + depth          lane being the lane of each slot

    Inputs changed: `past_len` [lanes], and a cache for each lane. Input added: `widths` [lanes] int64, the slots of
    each lane. Lanes that are chains take any widths, and need neither `mask` nor `depth`. For others each width is the
    topology's; `mask` and `depth` stay for the pass of the topology. A baked tree serves each lane, a frontier's mask
    has the slots of all lanes, and parents count the slots of all lanes.
    """

    lanes: int
    topology: Tree | Parents | Frontier

    def __call__(self, graph: GraphModule) -> int:
        attentions = calls(graph, CACHED)
        past_len, widths = placeholder(graph, "past_len"), self._lengths(graph)
        mask = self._mask(graph)
        self._place(graph, CachedAttentionCall.of(attentions[0]).positions, widths)
        named = outputs(graph)
        for node in attentions:
            call = CachedAttentionCall.of(node)
            heads, how = (call.query, call.key, call.value), (call.scale, call.window, call.softcap, call.layer)
            pasts = [self._cache(graph, past, lane) for lane in range(self.lanes) for past in call.caches]
            with graph.graph.inserting_before(node):
                args = (*heads, pasts, past_len, widths, mask, call.positions, call.sinks, *how)
                new = graph.graph.call_function(LANES, args)
                new.meta = dict(node.meta)
                results = [graph.graph.call_function(operator.getitem, (new, i)) for i in range(1 + len(pasts))]
            for item in list(node.users):
                if int_arg(item, 1) == 0:
                    results[0].meta = dict(item.meta)
                    item.replace_all_uses_with(results[0])
            for kind in ("key", "value"):
                del named[f"present.{call.layer}.{kind}"]
            names = [f"present.{lane}.{call.layer}.{kind}" for lane in range(self.lanes) for kind in ("key", "value")]
            named |= dict(zip(names, results[1:], strict=True))
        set_outputs(graph, named)
        for node in attentions:
            caches = CachedAttentionCall.of(node).caches
            for old in (*node.users, node, *caches):
                graph.graph.erase_node(old)
        if self._is_chain:
            graph.graph.erase_node(placeholder(graph, "mask"))
        return len(attentions)

    def _lengths(self, graph: GraphModule) -> Node:
        """Widen the input `past_len` to all lanes; return the new input `widths`."""
        placeholder(graph, "past_len").meta["val"] = torch.zeros(self.lanes, dtype=torch.long)
        return new_input(graph, "widths", torch.full((self.lanes,), self.topology.slots))

    def _cache(self, graph: GraphModule, past: Node, lane: int) -> Node:
        """Add the input for a lane's cache, shaped as `past`, the only one so far."""
        _, _, rest = past.name.partition("past_key_values_")
        return new_input(graph, f"past_key_values_{lane}_{rest}", past.meta["val"])

    @property
    def _is_chain(self) -> bool:
        return isinstance(self.topology, Tree) and self.topology.is_chain

    def _mask(self, graph: GraphModule) -> Node | None:
        """Return the mask [slots, span] of all lanes; None if they are chains."""
        mask = placeholder(graph, "mask")
        if self._is_chain or isinstance(self.topology, Frontier):
            return None if self._is_chain else mask
        slots = self.topology.slots
        own_columns = torch.arange(slots) + torch.arange(self.lanes).repeat_interleave(slots)[:, None] * slots
        columns = constant(graph, "own_columns", own_columns) if isinstance(self.topology, Parents) else None
        with graph.graph.inserting_before(first_call(graph)):
            if columns is not None:  # parents count the slots of all lanes, and a slot sees those of its own lane
                own = graph.graph.call_function(aten.gather.default, (mask, 1, columns))
            else:
                own = graph.graph.call_function(aten.repeat.default, (mask, [self.lanes, 1]))
        own.meta["val"] = torch.ones(self.lanes * slots, slots, dtype=torch.bool)
        return own

    def _place(self, graph: GraphModule, positions: Node, widths: Node) -> None:
        """Let positions count from the rows of each slot's own lane, and drop the input that chains do not need."""
        line, g = node_arg(positions, 0), graph.graph
        past_len, depth = placeholder(graph, "past_len"), placeholder(graph, "depth")
        numbers = constant(graph, "slot_numbers", torch.arange(self.lanes * self.topology.slots))
        with g.inserting_before(line):
            ends = g.call_function(aten.cumsum.default, (widths, 0))
            behind = g.call_function(aten.ge.Tensor, (g.call_function(aten.unsqueeze.default, (numbers, 1)), ends))
            behind = g.call_function(aten._to_copy.default, (behind,), {"dtype": torch.long})
            lane = g.call_function(aten.sum.dim_IntList, (behind, [1]))  # as many lanes end before the slot
            rows, steps = past_len, depth
            if self._is_chain:  # slot s of all is slot s - first of its lane
                first = g.call_function(aten.sub.Tensor, (ends, widths))
                rows, steps = g.call_function(aten.sub.Tensor, (past_len, first)), numbers
            elif isinstance(self.topology, Tree):
                steps = g.call_function(aten.repeat.default, (depth, [self.lanes]))
            rows = g.call_function(aten.index_select.default, (rows, 0, lane))
            new = g.call_function(aten.add.Tensor, (rows, steps))
        line.replace_all_uses_with(new)
        g.erase_node(line)
        if self._is_chain:
            g.erase_node(depth)
