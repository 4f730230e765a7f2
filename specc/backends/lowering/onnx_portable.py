"""Lower to the standard ONNX operators of opset 24 alone, which any runtime of that standard runs.

TensorScatter writes the slots' rows into the cache. Attention reads the whole of it under a boolean mask, so that no
shape depends on how many rows are in use. Scores that Attention cannot compute are written out: it caps masked scores
too, and has no sinks.

N  slots      C  capacity      T  span of the mask
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.fx import GraphModule, Node

from specc.backends.lowering.emit import emit, shape, shape_at, swap_each, swap_results
from specc.backends.lowering.masks import LaneParts, Masks, written_out
from specc.passes import Pass
from specc.passes.arguments import (
    CachedAttentionCall,
    LanesAttentionCall,
    RotaryCall,
    float_arg,
    node_arg,
    optional_node,
)
from specc.passes.find import CACHED, LANES, RMS_NORM, ROTARY, aten, calls, outputs, set_outputs


def lowering(slots: int, dtype: torch.dtype = torch.float32, rows: bool = False) -> list[Pass]:
    """Return the passes of this lowering, in order.

    Args:
        slots: The number of slots.
        dtype: The type of weights and caches.
        rows: Return the slots' rows too, as outputs rows.L.key and rows.L.value [1, heads, N, size].
    """
    return [Scatter(slots, dtype, rows), Rotary(slots, dtype), Norms(slots, dtype), Linears(slots, dtype)]


@dataclass(frozen=True)
class Linears(Pass):
    """A pass that rewrites products with a weight. Gemm takes two axes, so the others are flattened around it.

    Given:   y = linear(x, weight, bias)
    Result:  y = reshape(Gemm(reshape(x), weight, bias, transB=1))
    """

    slots: int
    dtype: torch.dtype

    def __call__(self, graph: GraphModule) -> int:
        def product(node: Node) -> Node:
            g, x, matrix, bias = graph.graph, node_arg(node, 0), node_arg(node, 1), optional_node(node, 2)
            *rows, width = shape_at(node, self.slots)
            flat = x if len(rows) == 1 else g.call_function(aten.reshape.default, (x, [-1, shape(matrix)[1]]))
            inputs = [flat, matrix] if bias is None else [flat, matrix, bias]
            new = emit(g, "Gemm", inputs, [math.prod(rows), width], self.dtype, transB=1)
            new.meta["nn_module_stack"] = node.meta.get("nn_module_stack")  # the reshape gets the node's own
            return new if len(rows) == 1 else g.call_function(aten.reshape.default, (new, [*rows, width]))

        return swap_each(graph, aten.linear.default, product)


@dataclass(frozen=True)
class Norms(Pass):
    """A pass that rewrites RMSNorm.

    Given:   y = specc.rms_norm(x, weight, eps)
    Result:  y = RMSNormalization(x, weight, epsilon=eps)
    """

    slots: int
    dtype: torch.dtype = torch.float32
    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        def norm(node: Node) -> Node:
            inputs, size = [node_arg(node, 0), node_arg(node, 1)], shape_at(node, self.slots)
            return emit(graph.graph, "RMSNormalization", inputs, size, self.dtype, epsilon=float_arg(node, 2), axis=-1)

        return swap_each(graph, RMS_NORM, norm)


@dataclass(frozen=True)
class Rotary(Pass):
    """A pass that rewrites the rotary embedding.

    Given:   y = specc.rotary(x, cos, sin, positions, interleaved)
    Result:  y = RotaryEmbedding(x, cos, sin, positions)
    """

    slots: int
    dtype: torch.dtype
    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        def rotary(node: Node) -> Node:
            call = RotaryCall.of(node)
            attributes: dict[str, Any] = {"interleaved": int(call.interleaved)}
            if call.rotated_sizes < shape(call.x)[3]:
                attributes["rotary_embedding_dim"] = call.rotated_sizes
            inputs = [call.x, call.cos, call.sin, call.positions]
            return emit(graph.graph, "RotaryEmbedding", inputs, shape_at(node, self.slots), self.dtype, **attributes)

        return swap_each(graph, ROTARY, rotary)


@dataclass(frozen=True)
class Scatter(Pass):
    """A pass that rewrites attention to a write into the cache and attention over the whole of it.

    All layers of one window share the mask `visible` [1, 1, N, C] bool.

    Given:   out, keys, values = specc.cached_attention(q, k, v, past_key, past_value, past_len, mask, …)
    Result:  keys = TensorScatter(past_key, k, past_len);  values = TensorScatter(past_value, v, past_len)
             out = Attention(q, keys, values, visible)

    Lanes have a mask each. Their slots are as many in each lane, so that shapes are fixed:

    Given:   out, *caches = specc.lanes_attention(q, k, v, pasts, past_len, widths, mask, …)
    Result:  the lines above for each lane, on its slice of q, k, v, past_len and mask;  out = concat(each lane's out)
    """

    slots: int
    dtype: torch.dtype
    rows: bool = False
    optional: ClassVar[bool] = True  # A trained head may have no attention.

    def __call__(self, graph: GraphModule) -> int:
        attentions = calls(graph, CACHED)
        masks: Masks | None = None
        rows: dict[str, Node] = {}
        for node in attentions:
            call = CachedAttentionCall.of(node)
            masks = masks or Masks(graph, self.slots, shape(call.past_key)[2])
            with graph.graph.inserting_before(node):
                results = self._attention(graph, call, masks)
            rows |= {f"rows.{call.layer}.key": call.key, f"rows.{call.layer}.value": call.value}
            swap_results(node, results)
        if self.rows:
            set_outputs(graph, outputs(graph) | rows)
        return len(attentions) + self._lanes(graph)

    def _lanes(self, graph: GraphModule) -> int:
        """Rewrite attention of several lanes to that of each lane over its own slots, as many in each."""
        attentions = calls(graph, LANES)
        parts: LaneParts | None = None
        masks: list[Masks] = []
        for node in attentions:
            call = LanesAttentionCall.of(node)
            if parts is None:
                parts = LaneParts(graph, self.slots // call.lanes)
                masks = [Masks(graph, parts.slots, shape(call.pasts[0])[2]) for _ in range(call.lanes)]
            outs: list[Node] = []
            caches: list[Node] = []
            with graph.graph.inserting_before(node):
                for lane in range(call.lanes):
                    out, *rows = self._attention(graph, parts.call(call, lane, with_heads=True), masks[lane])
                    outs.append(out)
                    caches += rows
                out = graph.graph.call_function(aten.cat.default, (outs, 2))
            swap_results(node, (out, *caches))
        return len(attentions)

    def _attention(self, graph: GraphModule, call: CachedAttentionCall, masks: Masks) -> tuple[Node, Node, Node]:
        """Insert what replaces one call; return its output and the two caches."""
        keys = self._write(graph, call.past_key, call.key, call)
        values = self._write(graph, call.past_value, call.value, call)
        return self._attend(graph, call, keys, values, masks), keys, values

    def _write(self, graph: GraphModule, past: Node, new: Node, call: CachedAttentionCall) -> Node:
        """Insert the write of the rows `new` into a cache."""
        inputs = [past, new, call.past_len]
        return emit(graph.graph, "TensorScatter", inputs, shape(past), self.dtype, axis=-2, mode="linear")

    def _attend(self, graph: GraphModule, call: CachedAttentionCall, keys: Node, values: Node, masks: Masks) -> Node:
        """Insert attention over the cache."""
        visible = masks.visible(call)
        if call.softcap or call.sinks is not None:
            return written_out(graph, masks.slots, call, keys, values, masks.capacity, visible)
        inputs, size = [call.query, keys, values, visible], shape_at(call.query, masks.slots)
        return emit(graph.graph, "Attention", inputs, size, self.dtype, scale=call.scale)
