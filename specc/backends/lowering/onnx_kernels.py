"""Lower products, embeddings and attention to the operators of specc-kernels, in the domain `specc`.

A row's result there does not depend on how many rows there are: verifying N slots gives the bits of N decode steps.
The operators are described in kernels/README.md. The other nodes are those of the fast lowering.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import onnx_ir as ir
import torch
from torch.fx import GraphModule, Node

from specc.backends.lowering.emit import (
    emit,
    emit_several,
    flat_heads,
    hand_on_results,
    shape,
    shape_at,
    swap_each,
    whole_of_heads,
)
from specc.backends.lowering.masks import is_causal
from specc.passes import Pass
from specc.passes.arguments import (
    CachedAttentionCall,
    LanesAttentionCall,
    RotaryCall,
    argument,
    int_arg,
    node_arg,
    optional_node,
)
from specc.passes.find import CACHED, LANES, ROTARY, aten, calls

DOMAIN = "specc"
SINCE = {  # the version of specc-kernels that brought each operator as it is used here
    "ArgMax": "0.5.0",
    "GatedMLP": "0.4.0",
    "GatherBF16": "0.1.0",
    "LinearBF16": "0.1.0",
    "LinearF32": "0.1.0",
    "LinearNBits": "0.2.0",
    "ProjectedAttention": "0.4.0",
    "TreeAttention": "0.1.0",
}
SMALL_BLOCK, SMALL_BLOCKS_SINCE = 16, "0.3.0"  # a block_size that LinearNBits takes only since that version
HEAD_MULTIPLE = 16  # sizes of a head: TreeAttention takes no others


def lowering(slots: int) -> list[Pass]:
    """Return the passes of this lowering but for attention.

    Args:
        slots: The number of slots that the block is traced with.
    """
    return [PanelLinears(slots), PanelQuantizedLinears(slots), PanelEmbeddings(slots), Choices(slots)]


def since(node: ir.Node) -> str:
    """Return the version of specc-kernels that brought an operator of it with these attributes."""
    has_small_blocks = node.attributes.get_int("block_size", 0) == SMALL_BLOCK
    return SMALL_BLOCKS_SINCE if has_small_blocks else SINCE[node.op_type]


def attends(graph: GraphModule) -> bool:
    """Tell whether TreeAttention can compute every attention of a graph."""
    return all(shape(node_arg(node, 0))[3] % HEAD_MULTIPLE == 0 for node in calls(graph, CACHED, LANES))


@dataclass(frozen=True)
class PanelLinears(Pass):
    """A pass that rewrites products with weights in panels.

    Given:   y = specc.panel_linear(x, panels, columns, k)
    Result:  y = specc.LinearBF16(x, panels, columns=columns, k=k), or LinearF32

    The operators know k from x. It stands there for tools that unpack the panels.
    """

    slots: int
    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        def product(node: Node) -> Node:
            panels = node_arg(node, 1)
            name = "LinearBF16" if panels.meta["val"].dtype == torch.bfloat16 else "LinearF32"
            size, columns, k = shape_at(node, self.slots), int_arg(node, 2), int_arg(node, 3)
            return emit(graph.graph, f"{DOMAIN}::{name}", [node_arg(node, 0), panels], size, columns=columns, k=k)

        return swap_each(graph, torch.ops.specc.panel_linear.default, product)


@dataclass(frozen=True)
class PanelQuantizedLinears(Pass):
    """A pass that rewrites products with quantised weights in panels. Activations are rounded to 8 bits, row by row.

    Given:   y = specc.panel_quantized_linear(x, panels, scales, columns, bits, block_size, k)
    Result:  y = specc.LinearNBits(x, panels, scales, columns=columns, k=k, bits=bits, block_size=block_size)
             with the inputs x, panels, scales, "", offsets if weights have offsets in the place of zero points
    """

    slots: int
    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        def product(node: Node) -> Node:
            offsets = optional_node(node, 7)
            return emit(
                graph.graph,
                f"{DOMAIN}::LinearNBits",
                [*(node_arg(node, i) for i in range(3)), *([] if offsets is None else [None, offsets])],
                shape_at(node, self.slots),
                columns=int_arg(node, 3),
                k=int_arg(node, 6),
                bits=int_arg(node, 4),
                block_size=int_arg(node, 5),
            )

        return swap_each(graph, torch.ops.specc.panel_quantized_linear.default, product)


@dataclass(frozen=True)
class PanelEmbeddings(Pass):
    """A pass that rewrites embeddings whose table stands in panels.

    Given:   y = specc.panel_embedding(ids, panels, columns, k)
    Result:  y = specc.GatherBF16(ids, panels, columns=columns, k=k)
    """

    slots: int
    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        def rows(node: Node) -> Node:
            inputs, size = [node_arg(node, 0), node_arg(node, 1)], shape_at(node, self.slots)
            name = f"{DOMAIN}::GatherBF16"
            return emit(graph.graph, name, inputs, size, columns=int_arg(node, 2), k=int_arg(node, 3))

        return swap_each(graph, torch.ops.specc.panel_embedding.default, rows)


@dataclass(frozen=True)
class Choices(Pass):
    """A pass that rewrites the choice of the likeliest tokens. ONNX Runtime's takes six times as long.

    Given:   ids = argmax(logits, -1)      on fp32
    Result:  ids = specc.ArgMax(logits)
    """

    slots: int
    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        def choice(node: Node) -> Node:
            logits = node_arg(node, 0)
            size = shape_at(logits, self.slots)[:-1]
            return emit(graph.graph, f"{DOMAIN}::ArgMax", [logits], size, torch.int64)

        return swap_each(graph, aten.argmax.default, choice, _is_choice)


def _is_choice(node: Node) -> bool:
    """Tell whether argmax goes over the last axis of fp32 numbers, and drops it."""
    values, keeps_axis = node_arg(node, 0).meta["val"], bool(argument(node, 2))
    return values.dtype == torch.float32 and argument(node, 1) in (-1, values.dim() - 1) and not keeps_axis


@dataclass(frozen=True)
class TreeAttentions(Pass):
    """A pass that rewrites attention to one node, which turns queries and keys itself and takes a tree as a mask.

    Past and present may be one buffer. Without a mask the slots are a chain, of any width.

    Given:   q, k, v = transpose(view(…));  out, keys, values = specc.cached_attention(rotary(q), rotary(k), v, …)
             or out, *caches = specc.lanes_attention(rotary(q), rotary(k), v, …)
    Result:  out, keys, values = specc.TreeAttention(…)   on [1, slots, heads * size]; with lanes out, *caches
    """

    slots: int
    optional: ClassVar[bool] = True  # A trained head may have no attention.

    def __call__(self, graph: GraphModule) -> int:
        attentions = calls(graph, CACHED, LANES)
        masks: dict[Node, Node | None] = {}
        for node in attentions:
            call = LanesAttentionCall.of(node) if node.target is LANES else CachedAttentionCall.of(node)
            if call.mask is not None and call.mask not in masks:
                masks[call.mask] = None if is_causal(graph, call.mask) else call.mask
            with graph.graph.inserting_before(node):
                new = self._attention(graph, call, None if call.mask is None else masks[call.mask])
            hand_on_results(graph, node, new)
        return len(attentions)

    def _attention(self, graph: GraphModule, call: CachedAttentionCall | LanesAttentionCall, mask: Node | None) -> Node:
        """Insert the operator for one call. Without a mask its slots, or those of each lane, are a chain."""
        pasts, widths = call.caches, call.widths if isinstance(call, LanesAttentionCall) else None
        (_, heads, _, size), kv_heads = shape(call.query), shape(call.key)[1]
        query, key = call.query, call.key
        turn = _common_rotation(call)
        if turn is not None:
            query, key = node_arg(query, 0), node_arg(key, 0)
        flat = [flat_heads(graph, head) for head in (query, key, call.value)]
        packed = self._packed(graph, flat, (heads + 2 * kv_heads) * size)
        inputs = [
            packed,
            call.past_len,
            widths,
            call.positions if turn or call.window else None,
            turn.cos if turn else None,
            turn.sin if turn else None,
            mask,
            call.sinks,
            *pasts,
        ]
        shapes = [[1, self.slots, heads * size], *(shape(past) for past in pasts)]
        return emit_several(
            graph.graph,
            f"{DOMAIN}::TreeAttention",
            inputs,
            shapes,
            num_heads=heads,
            kv_num_heads=kv_heads,
            scale=call.scale,
            softcap=call.softcap,
            local_window_size=call.window,
            rotary_interleaved=int(turn is not None and turn.interleaved),
        )

    def _packed(self, graph: GraphModule, flat: list[Node], width: int) -> Node:
        """Return queries, keys and values side by side, [1, slots, width]."""
        whole = whole_of_heads(flat)
        if whole is not None:
            return whole
        return emit(graph.graph, "Concat", flat, [1, self.slots, width], axis=2)


def _common_rotation(call: CachedAttentionCall | LanesAttentionCall) -> RotaryCall | None:
    """Return the rotation that the operator can take over: queries and keys turn alike, by the slots' positions."""
    query, key = call.query, call.key
    if query.target is not ROTARY or key.target is not ROTARY or query.args[1:] != key.args[1:]:
        return None
    turn = RotaryCall.of(query)
    return turn if turn.positions is call.positions else None
