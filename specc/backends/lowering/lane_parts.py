"""Cut values of several lanes into those of each, where every lane has as many slots.

N  slots of a lane      T  span of the mask
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch.fx import GraphModule, Node

from specc.backends.lowering.emit import shape
from specc.passes.arguments import CachedAttentionCall, LanesAttentionCall
from specc.passes.find import aten, constant


@dataclass
class LaneParts:
    """A maker of the parts of values that belong to one lane. All layers share the parts.

    Attributes:
        graph: Where the parts are inserted, at the graph's insertion point.
        slots: The slots of each lane, N.
        by_value: The parts so far, by the value and the lane.
    """

    graph: GraphModule
    slots: int
    by_value: dict[tuple[Node, int], Node] = field(default_factory=dict)

    def call(self, call: LanesAttentionCall, lane: int, *, with_heads: bool) -> CachedAttentionCall:
        """Return the call of one lane over its own slots and cache.

        Args:
            call: The call of all lanes.
            lane: The lane.
            with_heads: Whether queries, keys and values are cut too. If not, they are those of all lanes.
        """
        heads = [call.query, call.key, call.value]
        if with_heads:
            heads = [self._slots(h, lane, 2, [1, shape(h)[1], self.slots, shape(h)[3]]) for h in heads]
        query, key, value = heads
        return CachedAttentionCall(
            query=query,
            key=key,
            value=value,
            past_key=call.pasts[2 * lane],
            past_value=call.pasts[2 * lane + 1],
            past_len=self._part(call.past_len, lane, 0, 1, [1]),
            mask=self._mask(call, lane),
            positions=self._slots(call.positions, lane, 1, [1, self.slots]),
            sinks=call.sinks,
            scale=call.scale,
            window=call.window,
            softcap=call.softcap,
            layer=call.layer,
        )

    def _mask(self, call: LanesAttentionCall, lane: int) -> Node:
        """Return the mask [N, T] of a lane; that of a chain if the call has none."""
        if call.mask is None:
            return constant(self.graph, "lane_mask", torch.ones(self.slots, self.slots, dtype=torch.bool).tril())
        return self._slots(call.mask, lane, 0, [self.slots, shape(call.mask)[1]])

    def _slots(self, value: Node, lane: int, axis: int, sizes: Sequence[int]) -> Node:
        return self._part(value, lane, axis, self.slots, sizes)

    def _part(self, value: Node, lane: int, axis: int, count: int, sizes: Sequence[int]) -> Node:
        """Return a lane's `count` items of an axis. `sizes` is the shape of the part."""
        if (value, lane) not in self.by_value:
            args = (value, axis, lane * count, (lane + 1) * count)
            node = self.graph.graph.call_function(aten.slice.Tensor, args)
            node.meta["val"] = torch.empty(tuple(sizes), device="meta")
            self.by_value[value, lane] = node
        return self.by_value[value, lane]
