"""Read the older rows of a cache from a copy in 4 or 8 bits."""

from __future__ import annotations

import operator
from dataclasses import dataclass

import torch
from torch.fx import GraphModule, Node

from specc.runtime.errors import PassError
from specc.runtime.quantized_rows import COUNT, LOWER, PARTS, part_shapes

from .arguments import CachedAttentionCall, int_arg
from .find import CACHED, DEQUANTIZED_ROWS, WRITE_ROWS, calls, new_input, outputs, placeholder, set_outputs
from .protocol import Pass


@dataclass(frozen=True)
class QuantizedRows(Pass):
    """A pass that lets attention read rows that have codes from these. The cache itself gets exact rows as before.

    Given:   out, present.L.key, … = specc.cached_attention(q, k, v, past_key_values.L.key, …, past_len, …)
    Result:  keys = specc.dequantized_rows(past_key_values.L.key, codes, scales, least, quantized_rows, lower)
             out, _, _ = specc.cached_attention(q, k, v, keys, …, past_len, …)
             present.L.key = specc.write_rows(past_key_values.L.key, k, past_len)       and so for values

    Inputs added: `quantized_rows` [1] int64, and for keys and values of each layer what `part_shapes` says, under names
    such as `past_key_values_L_key_codes`. There is no `lower` with 4 bits.

    Attributes:
        group: The number of rows of a group.
        bits: How many bits of a number are read, 4 or 8.
    """

    group: int
    bits: int = 4

    def __call__(self, graph: GraphModule) -> int:
        attentions, named = calls(graph, CACHED), outputs(graph)
        past_len = placeholder(graph, "past_len")
        count = new_input(graph, COUNT, torch.zeros(1, dtype=torch.long))
        for node in attentions:
            call = CachedAttentionCall.of(node)
            for kind, past, new in zip(("key", "value"), call.caches, (call.key, call.value), strict=True):
                parts = self._parts(graph, call.layer, kind, past)
                with graph.graph.inserting_before(node):
                    rows = graph.graph.call_function(DEQUANTIZED_ROWS, (past, *parts[:3], count, *parts[3:]))
                    written = graph.graph.call_function(WRITE_ROWS, (past, new, past_len))
                rows.meta["val"] = written.meta["val"] = past.meta["val"]
                node.replace_input_with(past, rows)
                rows.update_arg(0, past)
                written.update_arg(0, past)
                named[f"present.{call.layer}.{kind}"] = written
        set_outputs(graph, named)
        for node in attentions:
            for item in list(node.users):
                assert item.target is operator.getitem
                if int_arg(item, 1) and not item.users:
                    graph.graph.erase_node(item)
        return len(attentions)

    def _parts(self, graph: GraphModule, layer: int, kind: str, past: Node) -> list[Node]:
        """Add the inputs for the parts of a layer's copy. Raises PassError if its rows cannot have one."""
        _, heads, capacity, size = past.meta["val"].shape
        if size % 2 or capacity < self.group:
            raise PassError(
                f"layer {layer} has heads of {size} numbers and a cache of {capacity} rows; groups of {self.group} "
                "rows in 4 bits need an even size, and a cache of one group at least"
            )
        shapes = part_shapes(kind, heads, capacity, size, self.group, self.bits)
        examples = {part: torch.zeros(shape, dtype=getattr(torch, dtype)) for part, (dtype, shape) in shapes.items()}
        return [
            new_input(graph, f"past_key_values_{layer}_{kind}_{part}", examples[part])
            for part in (*PARTS, LOWER)
            if part in shapes
        ]
