"""Run a second residual stream beside the model's first layers, and let it leave in the place of the model's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch.fx import GraphModule, Node

from specc.runtime.block import STATE
from specc.runtime.errors import PassError

from .arguments import AttentionCall, RotaryCall
from .find import (
    ATTENTION,
    ROTARY,
    aten,
    calls,
    layer_input,
    layer_output,
    layers,
    outputs,
    set_outputs,
    side_by_side,
    splice,
)
from .protocol import Pass


@dataclass(frozen=True)
class SecondStream(Pass):
    """A pass that lets a second stream attend to the rows of the model's first layers, with queries of its own.

    The attention of each layer gets twice as many heads of queries. A head of keys serves those of both streams, which
    stand side by side. So the second stream has no rows of its own. Its queries turn as the model's do.

    Given:   y = attention(q, k, v);  b = layers.0(a), with y;  logits = head(norm(b))
    Result:  y, z = parts of attention(cat(q, rotary(queries(a))), k, v);  b = layers.0(a), with y
             c = moves(cat(a, a, b, z));  logits = head(norm(c));  state:NAME = gate(c)          for one layer

    It runs after the passes that leave layers out.

    Attributes:
        name: The head.
        queries: For each layer a graph from the second stream before it to queries, [1, slots, heads * size].
        moves: For each layer a graph to the second stream behind it, from what follows, side by side: the second
            stream and the model's stream before the layer, the model's stream behind it, and what was attended to.
        gate: A graph from the second stream behind all layers, side by side, to the state that is returned.
    """

    name: str
    queries: tuple[GraphModule, ...] = field(repr=False, compare=False)
    moves: tuple[GraphModule, ...] = field(repr=False, compare=False)
    gate: GraphModule = field(repr=False, compare=False)

    def __call__(self, graph: GraphModule) -> int:
        path_by_layer = layers(graph)
        attention = {AttentionCall.of(node).layer: node for node in calls(graph, ATTENTION)}
        streams: list[Node] = []
        slow = fast = layer_input(graph, path_by_layer[0])
        users: list[Node] = []
        for number, (ask, move) in enumerate(zip(self.queries, self.moves, strict=True)):
            behind = layer_output(graph, path_by_layer[number])
            with graph.graph.inserting_before(attention[number]):
                query = splice(graph, f"{self.name}_queries_{number}", ask, fast)
                second = _attend_twice(graph, attention[number], query)
            users = list(behind.users)
            with graph.graph.inserting_before(behind.next):
                joined = side_by_side(graph, [fast, slow, behind, second])
                fast = splice(graph, f"{self.name}_moves_{number}", move, joined)
            fast.meta["val"] = behind.meta["val"]
            streams.append(fast)
            slow = behind
        for user in users:
            user.replace_input_with(slow, fast)
        with graph.graph.inserting_before(graph.graph.output_node()):
            state = splice(graph, f"{self.name}_gate", self.gate, side_by_side(graph, streams))
        set_outputs(graph, outputs(graph) | {f"{STATE}{self.name}": state})
        return len(streams)


def _attend_twice(graph: GraphModule, node: Node, query: Node) -> Node:
    """Let a second query attend with a layer's own. Return what it attended to, [1, slots, heads * size].

    Args:
        graph: The graph, whose insertion point stands before the attention.
        node: The attention.
        query: [1, slots, heads * size].

    Raises:
        PassError: The attention has sinks, or other heads; or its queries turn neighbours.
    """
    call = AttentionCall.of(node)
    _, heads, slots, size = call.query.meta["val"].shape
    key_heads = call.key.meta["val"].shape[1]
    width = query.meta["val"].shape[-1]
    if call.sinks is not None or width != heads * size or call.value.meta["val"].shape[-1] != size:
        raise PassError(
            f"{node.name} has {heads} heads of {size} numbers, and a second stream has {width} in all; it needs as "
            "many, and attention without sinks"
        )
    insert = _Inserter(graph, (1, slots, size))
    by_head = [insert.row(aten.slice.Tensor, query, 2, n * size, (n + 1) * size) for n in range(heads)]
    turned = insert.heads(aten.cat.default, [insert.heads(aten.unsqueeze.default, x, 1, count=1) for x in by_head], 1)
    turned.meta["val"] = call.query.meta["val"]
    if call.query.target is ROTARY:
        rotary = RotaryCall.of(call.query)
        if rotary.interleaved:
            raise PassError(f"{call.query.name} turns neighbours, and a second stream is trained to turn halves")
        turned = graph.graph.call_function(
            ROTARY, (turned, rotary.cos, rotary.sin, rotary.positions, rotary.interleaved)
        )
        turned.meta["val"] = call.query.meta["val"]
    groups = heads // key_heads
    both: list[Node] = []
    for head in range(key_heads):
        both += [
            insert.heads(aten.slice.Tensor, x, 1, head * groups, (head + 1) * groups, count=groups)
            for x in (call.query, turned)
        ]
    doubled = insert.heads(aten.cat.default, both, 1, count=2 * heads)
    value = node.meta["val"]
    own_users = list(node.users)
    new = graph.graph.call_function(ATTENTION, (doubled, *node.args[1:]))
    new.meta = dict(node.meta) | {"val": value.new_empty(1, 2 * heads, slots, size)}
    own, second = [], []
    for head in range(key_heads):
        first = 2 * head * groups
        own.append(insert.heads(aten.slice.Tensor, new, 1, first, first + groups, count=groups))
        second += [insert.row(aten.select.int, new, 1, first + groups + number) for number in range(groups)]
    own_output = insert.heads(aten.cat.default, own, 1, count=heads)
    own_output.meta = dict(node.meta)
    for user in own_users:
        user.replace_input_with(node, own_output)
    graph.graph.erase_node(node)
    result = graph.graph.call_function(aten.cat.default, (second, -1))
    result.meta["val"] = value.new_empty(1, slots, heads * size)
    return result


class _Inserter:
    """An inserter of calls, each with a value of known shape.

    Args:
        graph: The graph.
        shape: One, the slots, and the size of a head.
    """

    def __init__(self, graph: GraphModule, shape: Sequence[Any]) -> None:
        self.graph, (_, self.slots, self.size) = graph, shape

    def row(self, target: Any, x: Node, *args: Any) -> Node:
        """Insert a call whose value is [1, slots, size]."""
        return self._call(target, (x, *args), x, (1, self.slots, self.size))

    def heads(self, target: Any, x: Node | list[Node], *args: Any, count: int = 1) -> Node:
        """Insert a call whose value is [1, count, slots, size]."""
        like = x if isinstance(x, Node) else x[0]
        return self._call(target, (x, *args), like, (1, count, self.slots, self.size))

    def _call(self, target: Any, args: tuple[Any, ...], like: Node, shape: tuple[Any, ...]) -> Node:
        node = self.graph.graph.call_function(target, args)
        node.meta["val"] = like.meta["val"].new_empty(shape)
        return node
