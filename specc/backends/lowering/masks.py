"""Masks of attention over a cache, one for each window; attention written out; the parts of values of several lanes.

N  slots      C  capacity      T  span of the mask
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch.fx import GraphModule, Node

from specc.backends.lowering.emit import emit, shape, shape_at
from specc.passes.arguments import CachedAttentionCall, LanesAttentionCall
from specc.passes.find import aten, constant, weight

HIDDEN = -1e4  # a score that no softmax sees; fp16 holds it too, and its sum with any other score
HIDDEN_FP32 = -1e30  # a bias that leaves nothing of a score, for graphs that are float32 throughout
TO_THE_END = 2**31  # rows: an end that no cache has


def is_causal(graph: GraphModule, mask: Node) -> bool:
    """Tell whether a mask [N, N] is a constant that hides later slots and nothing else."""
    value = weight(graph, mask) if mask.op == "get_attr" else None
    return value is not None and torch.equal(value, torch.ones_like(value).tril())


@dataclass
class Masks:
    """A maker of boolean masks over the whole cache, which all layers of one window share."""

    graph: GraphModule
    slots: int
    capacity: int
    by_window: dict[int, Node] = field(default_factory=dict)

    def visible(self, call: CachedAttentionCall) -> Node:
        """Return the rows of the cache that each slot sees, [1, 1, N, C] bool.

        A slot sees all rows before the last T in use, and those of the last T that the call's mask [N, T] shows.
        A chain's mask follows from the positions, so it needs no table.
        """
        if call.window not in self.by_window:
            insert = self.graph.graph.call_function
            rows = constant(self.graph, "rows", torch.arange(self.capacity)[None])
            own = insert(aten.transpose.int, (call.positions, 0, 1))  # the slots' positions, [N, 1]
            if is_causal(self.graph, call.mask):
                visible, place = insert(aten.le.Tensor, (rows, own)), rows
            else:
                visible, place = self._by_table(call, rows)
            if call.window:
                distance = insert(aten.sub.Tensor, (own, place))
                near = insert(aten.lt.Scalar, (distance, call.window))
                visible = insert(aten.logical_and.default, (visible, near))
            self.by_window[call.window] = insert(aten.view.default, (visible, [1, 1, self.slots, self.capacity]))
        return self.by_window[call.window]

    def _by_table(self, call: CachedAttentionCall, rows: Node) -> tuple[Node, Node]:
        """Look up each row of the cache in the mask.

        Returns:
            What the slots see, [N, C] bool, and the position that each row holds, [1, C].
        """
        insert, span = self.graph.graph.call_function, shape(call.mask)[1]
        start = insert(aten.add.Tensor, (call.past_len, self.slots - span))  # the first row that the mask governs
        offset = insert(aten.sub.Tensor, (rows, start))
        index = insert(aten.squeeze.dims, (insert(aten.clamp.default, (offset, 0, span)), [0]))
        nothing = constant(self.graph, "no_slots", torch.zeros(self.slots, 1, dtype=torch.bool))
        table = insert(aten.cat.default, ([call.mask, nothing], 1))  # rows behind the mask are not in use: column T
        before = insert(aten.lt.Scalar, (offset, 0))
        visible = insert(aten.logical_or.default, (before, insert(aten.index_select.default, (table, 1, index))))
        if not call.window or span != self.slots:
            return visible, rows
        # The mask governs the slots' own rows, which lie side by side but hold positions that a tree gives them.
        last = constant(self.graph, "no_position", torch.zeros(1, 1, dtype=torch.long))
        positions = insert(aten.cat.default, ([call.positions, last], 1))
        return visible, insert(
            aten.where.self, (before, rows, insert(aten.index_select.default, (positions, 1, index)))
        )


@dataclass
class Biases:
    """A maker of additive masks over the rows in use, in ONNX operators, which all layers of one window share."""

    graph: GraphModule
    slots: int
    by_window: dict[int, Node] = field(default_factory=dict)

    def bias(self, call: CachedAttentionCall) -> Node:
        """Return a bias of the scores, [1, 1, N, rows in use] float32: 0 where a slot sees a row."""
        if call.window not in self.by_window:
            span = shape(call.mask)[1]
            count = self.graph.graph.call_function(aten.add.Tensor, (call.past_len, self.slots))
            bias = self._unwindowed(call, count, span)
            if call.window:
                far = self._far(call, count, span)
                bias = self._emit("Where", [far, self._number("hidden", HIDDEN_FP32), bias], [self.slots, span])
            shape_4d = [1, 1, self.slots, span]
            self.by_window[call.window] = self._emit("Unsqueeze", [bias, self._ints(0, 1)], shape_4d)
        return self.by_window[call.window]

    def _unwindowed(self, call: CachedAttentionCall, count: Node, span: int) -> Node:
        """Return the bias [N, rows in use] without a window.

        The mask governs the last rows in use. Zeros for all rows are put before it, and the end of that is taken,
        as long as there are rows in use; so it is right for any number of them.
        """
        hidden, visible = self._number("hidden", HIDDEN_FP32), self._number("visible", 0.0)
        governed = self._emit("Where", [call.mask, visible, hidden], [self.slots, span])
        zeros_shape = self._emit("Concat", [self._ints(self.slots), count], [2], torch.int64, axis=0)
        zeros = self._emit("ConstantOfShape", [zeros_shape], [self.slots, span])
        both = self._emit("Concat", [zeros, governed], [self.slots, 2 * span], axis=1)
        start = self.graph.graph.call_function(aten.neg.default, (count,))
        return self._emit("Slice", [both, start, self._ints(TO_THE_END), self._ints(1)], [self.slots, span])

    def _far(self, call: CachedAttentionCall, count: Node, span: int) -> Node:
        """Return the rows in use that lie outside each slot's window, [N, rows in use] bool."""
        insert, long = self.graph.graph.call_function, torch.int64
        own_rows = span == self.slots  # the mask governs the slots' own rows: their positions are the slots'
        zero, one = (constant(self.graph, f"int_{i}", torch.tensor(i)) for i in (0, 1))
        end = insert(aten.squeeze.default, (call.past_len if own_rows else count,))
        rows = self._emit("Range", [zero, end, one], [span], long)
        if own_rows:
            own = insert(aten.squeeze.dims, (call.positions, [0]))
            rows = self._emit("Concat", [rows, own], [span], long, axis=0)
        rows = self._emit("Unsqueeze", [rows, self._ints(0)], [1, span], long)
        oldest = insert(aten.sub.Tensor, (call.positions, call.window))
        oldest = insert(aten.transpose.int, (oldest, 0, 1))
        return self._emit("LessOrEqual", [rows, oldest], [self.slots, span], torch.bool)

    def _emit(
        self, op: str, inputs: list[Node], sizes: list[int], dtype: torch.dtype = torch.float32, **attributes: int
    ) -> Node:
        return emit(self.graph.graph, op, inputs, sizes, dtype, **attributes)

    def _ints(self, *values: int) -> Node:
        """Return a constant vector of whole numbers."""
        return constant(self.graph, f"ints_{'_'.join(map(str, values))}", torch.tensor(values))

    def _number(self, name: str, value: float) -> Node:
        """Return a constant number."""
        return constant(self.graph, name, torch.tensor(value))


def written_out(
    graph: GraphModule, slots: int, call: CachedAttentionCall, keys: Node, values: Node, capacity: int, visible: Node
) -> Node:
    """Insert attention in torch's operators, with capped scores and with sinks that take their share of the softmax.

    Heads that share keys are one product: their queries stand one below the other.

    Args:
        graph: Where to insert it, at the graph's insertion point.
        slots: The number N of slots.
        call: The call that is replaced.
        keys: [1, heads of keys, C, size].
        values: [1, heads of keys, C, size].
        capacity: The number C of rows of `keys` and `values`.
        visible: [1, 1, N, C] bool.

    Returns:
        [1, heads, N, size].
    """
    insert = graph.graph.call_function
    (_, heads, _, size), kv_heads = shape_at(call.query, slots), shape(call.past_key)[1]
    grouped = insert(aten.reshape.default, (call.query, [1, kv_heads, heads // kv_heads * slots, size]))
    scores = insert(aten.matmul.default, (grouped, insert(aten.transpose.int, (keys, 2, 3))))
    scores = insert(aten.mul.Tensor, (scores, call.scale))
    if call.softcap:
        bounded = insert(aten.tanh.default, (insert(aten.div.Tensor, (scores, call.softcap)),))
        scores = insert(aten.mul.Tensor, (bounded, call.softcap))
    scores = insert(aten.reshape.default, (scores, [1, heads, slots, capacity]))
    scores = insert(aten.where.ScalarOther, (visible, scores, HIDDEN))
    if call.sinks is not None:
        per_head = insert(aten.view.default, (call.sinks, [1, -1, 1, 1]))
        column = insert(aten.expand.default, (per_head, [1, heads, slots, 1]))
        scores = insert(aten.cat.default, ([scores, column], -1))
    weights = insert(aten.softmax.int, (scores, -1))
    if call.sinks is not None:
        weights = insert(aten.slice.Tensor, (weights, 3, 0, capacity))
    weights = insert(aten.reshape.default, (weights, [1, kv_heads, heads // kv_heads * slots, capacity]))
    out = insert(aten.matmul.default, (weights, values))
    return insert(aten.reshape.default, (out, [1, heads, slots, size]))


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
