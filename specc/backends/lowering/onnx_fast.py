"""The lowering that is fastest on ONNX Runtime's CPU provider: its contrib operators, in as few nodes as they allow.

GroupQueryAttention updates past and present in place where both are one buffer, reads only the rows in use, turns
queries and keys by itself, and takes the tree as a bias (its own mask is causal over the slots, so parents stand
before children). FusedMatMul reads a weight as the checkpoint has it, so one copy serves embedding and head.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import onnx_ir as ir
import torch
from torch.fx import Graph, GraphModule, Node, Proxy
from torch.fx.proxy import GraphAppendingTracer

from specc.passes import Pass
from specc.passes.find import CACHED, aten, calls, constant, first_call, placeholder, weight
from specc.passes.fuse_rotary import ROTARY

HIDDEN = -1e30
SLOTS = "counted_slots"
FLAT = {aten.view.default, aten.reshape.default}


def lowering(slots: int, any_width: bool = False) -> list[Pass]:
    """any_width: slots are counted as the engine runs, where attention needs their number."""
    return [
        GroupQuery(slots, any_width),
        Rotary(slots),
        SkipNorms(slots),
        Norms(slots),
        Swish(slots),
        Linears(slots),
        FewBits(slots),
    ]


def emit(
    g: Graph, op: str, inputs: Sequence[Node | None], shape: Sequence[int], dtype: torch.dtype = torch.float32,
    **attributes: Any,
) -> Node:  # fmt: skip
    """A call of the ONNX operator `domain::Name`. A size that changes at run time may be stated as any number."""
    values = _proxies(g, inputs)
    return torch.onnx.ops.symbolic(op, values, attributes, dtype=dtype, shape=list(shape)).node  # type: ignore[attr-defined]


def emit_several(
    g: Graph, op: str, inputs: Sequence[Node | None], shapes: Sequence[list[int]], **attributes: Any
) -> Node:
    """The same of an operator of several results, float32 all."""
    dtypes = [torch.float32] * len(shapes)
    return torch.onnx.ops.symbolic_multi_out(op, _proxies(g, inputs), attributes, dtypes=dtypes, shapes=shapes).node  # type: ignore[attr-defined]


def _proxies(g: Graph, nodes: Sequence[Node | None]) -> list[Any]:
    """What torch's functions take for values, so that calling one adds its operator to the graph."""
    tracer = GraphAppendingTracer(g)
    return [None if node is None else Proxy(node, tracer) for node in nodes]


def swap(node: Node, new: Node) -> None:
    new.meta = dict(node.meta)
    node.replace_all_uses_with(new)


def shape(node: Node) -> list[int]:
    """A value's shape, 0 standing for what the number of slots decides."""
    return [size if isinstance(size, int) else 0 for size in node.meta["val"].shape]


def shape_at(node: Node, slots: int) -> list[int]:
    """A value's shape in a block of so many slots."""

    def at(size: Any) -> int:
        if isinstance(size, int):
            return size
        return int(size.node.expr.subs(dict.fromkeys(size.node.expr.free_symbols, slots)))

    return [at(size) for size in node.meta["val"].shape]


def count_slots(graph: GraphModule) -> Node:
    """How many slots the engine is run with, [1] int64; one node for all who ask."""
    for node in graph.graph.nodes:
        if node.name == SLOTS:
            return node
    ids = placeholder(graph, "input_ids")
    with graph.graph.inserting_before(first_call(graph)):
        node = emit(graph.graph, "Shape", [ids], [1], torch.int64, start=1, end=2)
    node.name = SLOTS
    return node


@dataclass(frozen=True)
class Linears:
    """
    Given:   y = linear(x, weight, bias)
    Result:  y = FusedMatMul(x, weight, transB=1) + bias
    """

    slots: int
    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        found = calls(graph, aten.linear.default)
        for node in found:
            x, matrix, bias = (*node.args, None)[:3]
            with graph.graph.inserting_before(node):
                new = emit(graph.graph, "com.microsoft::FusedMatMul", [x, matrix], shape_at(node, self.slots), transB=1)
                if bias is not None:
                    new = graph.graph.call_function(aten.add.Tensor, (new, bias))
            swap(node, new)
        return len(found)


@dataclass(frozen=True)
class FewBits:
    """
    Given:   y = specc.quantized_linear(x, packed, scales, columns, bits, block_size)
    Result:  y = MatMulNBits(x, packed, scales, K=columns, …), whose arithmetic is in 8 bits (accuracy level 4)
    """

    slots: int
    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        found = calls(graph, torch.ops.specc.quantized_linear.default)
        for node in found:
            x, packed, scales, columns, bits, block_size = node.args
            with graph.graph.inserting_before(node):
                new = emit(
                    graph.graph, "com.microsoft::MatMulNBits", [x, packed, scales], shape_at(node, self.slots),
                    K=columns, N=shape(packed)[0], bits=bits, block_size=block_size, accuracy_level=4,
                )  # fmt: skip
            swap(node, new)
        return len(found)


@dataclass(frozen=True)
class SkipNorms:
    """
    Given:   s = x + z;  y = specc.rms_norm(s, weight, eps)
    Result:  y, _, _, s = SkipSimplifiedLayerNormalization(x, z, weight, epsilon=eps)
    """

    slots: int
    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        changed = 0
        for node in calls(graph, torch.ops.specc.rms_norm.default):
            total, scale, eps = node.args
            if not _sum_of_two(total) or scale.op != "get_attr" or len(shape(scale)) != 1:
                continue
            size = shape_at(node, self.slots)
            with graph.graph.inserting_before(total):
                weight_node = graph.graph.get_attr(scale.target)
                weight_node.meta = dict(scale.meta)
                both = emit_several(
                    graph.graph, "com.microsoft::SkipSimplifiedLayerNormalization", [*total.args[:2], weight_node],
                    [size, [1], [1], size], epsilon=eps,
                )  # fmt: skip
                for old, i in ((node, 0), (total, 3)):
                    swap(old, graph.graph.call_function(operator.getitem, (both, i)))
            changed += 1
        return changed


def _sum_of_two(node: Node) -> bool:
    """Whether a node adds two values of one shape, three dimensions, of which neither is a weight."""
    if node.target is not aten.add.Tensor or not all(isinstance(a, Node) for a in node.args[:2]):
        return False
    shapes = [shape(a) for a in node.args[:2]]
    return shapes[0] == shapes[1] and len(shapes[0]) == 3 and all(a.op != "get_attr" for a in node.args[:2])


@dataclass(frozen=True)
class Swish:
    """
    Given:   y = silu(x)
    Result:  y = QuickGelu(x, alpha=1), which is x * sigmoid(x)
    """

    slots: int
    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        found = calls(graph, aten.silu.default)
        for node in found:
            with graph.graph.inserting_before(node):
                new = emit(
                    graph.graph, "com.microsoft::QuickGelu", [node.args[0]], shape_at(node, self.slots), alpha=1.0
                )
            swap(node, new)
        return len(found)


@dataclass(frozen=True)
class Norms:
    """
    Given:   y = specc.rms_norm(x, weight, eps)
    Result:  y = RMSNormalization(x, weight, epsilon=eps)
    """

    slots: int
    dtype: torch.dtype = torch.float32
    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        found = calls(graph, torch.ops.specc.rms_norm.default)
        for node in found:
            x, scale, eps = node.args
            shape = shape_at(node, self.slots)
            with graph.graph.inserting_before(node):
                new = emit(graph.graph, "RMSNormalization", [x, scale], shape, self.dtype, epsilon=eps, axis=-1)
            swap(node, new)
        return len(found)


@dataclass(frozen=True)
class Rotary:
    """What GroupQueryAttention did not take in.

    Given:   y = specc.rotary(x, cos, sin, positions, interleaved)
    Result:  y = com.microsoft.RotaryEmbedding(x, positions, cos, sin)
    """

    slots: int
    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        found = calls(graph, ROTARY)
        for node in found:
            x, cos, sin, positions, interleaved = node.args
            rotated, heads = 2 * shape(cos)[1], shape(x)[1]
            partial = {"rotary_embedding_dim": rotated, "num_heads": heads} if rotated < shape(x)[3] else {}
            with graph.graph.inserting_before(node):
                new = emit(
                    graph.graph, "com.microsoft::RotaryEmbedding", [x, positions, cos, sin], shape_at(node, self.slots),
                    interleaved=int(interleaved), **partial,
                )  # fmt: skip
            swap(node, new)
        return len(found)


@dataclass(frozen=True)
class GroupQuery:
    """
    Given:   q, k, v = transpose(view(…));  out, keys, values = specc.cached_attention(rotary(q), rotary(k), v, …)
    Result:  out, keys, values = GroupQueryAttention(…)   on [1, slots, heads * size], the tree as a bias

    Without a bias the operator knows by itself where the slots of a chain stand.
    """

    slots: int
    any_width: bool = False

    def __call__(self, graph: GraphModule) -> int:
        found = calls(graph, CACHED)
        once = _Once(graph)
        for node in found:
            with graph.graph.inserting_before(node):
                new = self._attention(graph, node, once)
            for item in list(node.users):
                if item.args[1] == 0:
                    _hand_on(graph, item, new)
                else:
                    item.replace_input_with(node, new)
        return len(found)

    def _attention(self, graph: GraphModule, node: Node, once: _Once) -> Node:
        query, key, value, past_key, past_value, past_len, mask, positions, sinks, scale, window, softcap, _ = node.args
        (_, heads, _, size), slots = shape(query), self.slots
        kv_heads = shape(key)[1]
        cos = sin = None
        attributes = {"num_heads": heads, "kv_num_heads": kv_heads, "scale": scale, "softcap": softcap}
        if _turns(query, key):
            query, cos, sin, _, interleaved = query.args
            key = key.args[0]
            attributes |= {"do_rotary": 1, "rotary_interleaved": int(interleaved)}
        flat = _packed([_flat(graph, t) for t in (query, key, value)])
        bias = None if once.causal(mask) else once.bias(mask, past_len, positions, slots, window)
        if window and bias is None:
            attributes["local_window_size"] = window
        last, total = once.lengths(past_len, count_slots(graph) if self.any_width else slots)
        inputs = [*flat, past_key, past_value, last, total, cos, sin, positions if bias else None, bias, sinks]
        while inputs[-1] is None:
            inputs.pop()
        shapes = [[1, slots, heads * size], shape(past_key), shape(past_value)]
        return emit_several(graph.graph, "com.microsoft::GroupQueryAttention", inputs, shapes, **attributes)


def _turns(query: Node, key: Node) -> bool:
    """Whether the operator can rotate both: by one table, heads of 16 n sizes by 16 m of them."""
    if query.target is not ROTARY or key.target is not ROTARY or query.args[1:] != key.args[1:]:
        return False
    return shape(query)[3] % 16 == 0 and shape(query.args[1])[1] % 8 == 0


@dataclass
class _Once:
    """What all layers share: the lengths, and a bias for each window."""

    graph: GraphModule
    made: dict[Any, Any] = field(default_factory=dict)

    def causal(self, mask: Node) -> bool:
        """Whether the mask is a constant that hides nothing but later slots."""
        if mask not in self.made:
            value = weight(self.graph, mask) if mask.op == "get_attr" else None
            self.made[mask] = value is not None and torch.equal(value, torch.ones_like(value).tril())
        return bool(self.made[mask])

    def lengths(self, past_len: Node, slots: Node | int) -> tuple[Node, Node]:
        """`seqlens_k` [1], the last row's index, and `total_sequence_length` [], both int32."""
        if "lengths" not in self.made:
            g = self.graph.graph
            total = g.call_function(aten.add.Tensor, (past_len, slots))
            total = emit(g, "Cast", [total], [1], torch.int32, to=int(ir.DataType.INT32))
            last = g.call_function(aten.sub.Tensor, (total, 1))
            self.made["lengths"] = last, g.call_function(aten.squeeze.default, (total,))
        return self.made["lengths"]

    def bias(self, mask: Node, past_len: Node, positions: Node, slots: int, window: int) -> Node:
        """[1, 1, slots, total] float: 0 where a slot sees a row.

        The mask governs the last rows of all; zeros stand before it, and what is too many is cut off in front.
        """
        if window in self.made:
            return self.made[window]
        g, span, long = self.graph.graph, shape(mask)[1], torch.int64

        def ints(*values: int) -> Node:
            return constant(self.graph, f"ints_{'_'.join(map(str, values))}", torch.tensor(values))

        def number(value: float) -> Node:
            return constant(self.graph, "hidden" if value else "seen", torch.tensor(value))

        count = g.call_function(aten.add.Tensor, (past_len, slots))
        hidden = emit(g, "Where", [mask, number(0.0), number(HIDDEN)], [slots, span])
        before = emit(g, "Concat", [ints(slots), count], [2], long, axis=0)
        zeros = emit(g, "ConstantOfShape", [before], [slots, span])
        both = emit(g, "Concat", [zeros, hidden], [slots, 2 * span], axis=1)
        start = g.call_function(aten.neg.default, (count,))
        bias = emit(g, "Slice", [both, start, ints(2**31), ints(1)], [slots, span])
        if window:
            first, end = (g.call_function(aten.squeeze.default, (n,)) for n in (past_len, count))
            zero, one = (constant(self.graph, f"int_{i}", torch.tensor(i)) for i in (0, 1))
            own = g.call_function(aten.squeeze.dims, (positions, [0]))
            rows = emit(g, "Range", [zero, first if span == slots else end, one], [span], long)
            if span == slots:  # what the slots' rows hold stands at the slots' positions
                rows = emit(g, "Concat", [rows, own], [span], long, axis=0)
            rows = emit(g, "Unsqueeze", [rows, ints(0)], [1, span], long)
            oldest = g.call_function(aten.sub.Tensor, (positions, window))
            oldest = g.call_function(aten.transpose.int, (oldest, 0, 1))
            far = emit(g, "LessOrEqual", [rows, oldest], [slots, span], torch.bool)
            bias = emit(g, "Where", [far, number(HIDDEN), bias], [slots, span])
        self.made[window] = emit(g, "Unsqueeze", [bias, ints(0, 1)], [1, 1, slots, span])
        return self.made[window]


def _flat(graph: GraphModule, x: Node) -> Node:
    """[1, heads, slots, size] as [1, slots, heads * size]: what there was before the model split it, if that shows."""
    g, (_, heads, _, size) = graph.graph, shape(x)
    if x.target is not aten.transpose.int or tuple(x.args[1:]) != (1, 2):
        return g.call_function(aten.flatten.using_ints, (g.call_function(aten.transpose.int, (x, 1, 2)), 2, 3))
    split = x.args[0]
    if split.target in FLAT:
        whole: Node = split.args[0]
        if len(shape(whole)) == 3 and shape(whole)[-1] == heads * size:
            return whole
    return g.call_function(aten.flatten.using_ints, (split, 2, 3))


def _packed(flat: list[Node]) -> list[Node | None]:
    """What queries, keys and values are adjacent slices of, if that is all there is of it; else the three."""
    if not all(f.target is aten.slice.Tensor and f.args[:2] == (flat[0].args[0], 2) for f in flat):
        return [*flat]
    whole: Node = flat[0].args[0]
    edges = [0, *(f.args[3] for f in flat)]
    adjacent = [f.args[2] for f in flat] == edges[:3] and edges[3] == shape(whole)[-1]
    return [whole, None, None] if adjacent else [*flat]


def _hand_on(graph: GraphModule, old: Node, attention: Node) -> None:
    """Give the output's users [1, heads, slots, size]; those that flatten it again get it as it is."""
    g, (_, heads, _, size) = graph.graph, shape(old)
    with g.inserting_before(old):
        out = g.call_function(operator.getitem, (attention, 0))
        split = g.call_function(aten.view.default, (out, [1, -1, heads, size]))
        back = g.call_function(aten.transpose.int, (split, 1, 2))
    for user in list(old.users):
        if user.target is aten.transpose.int and tuple(user.args[1:]) == (1, 2):
            for last in list(user.users):
                if last.target in FLAT and len(shape(last)) == 3 and shape(last)[-1] == heads * size:
                    last.replace_all_uses_with(out)
    old.replace_all_uses_with(back)
