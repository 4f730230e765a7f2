"""Put ONNX operators into a torch graph, and tell the shapes that they need.

The operators are placeholders of `torch.onnx.ops`: torch.onnx writes them into the file as they stand.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch.fx import Graph, GraphModule, Node, Proxy
from torch.fx.proxy import GraphAppendingTracer

from specc.passes.arguments import argument, int_arg, node_arg
from specc.passes.find import aten, calls, first_call, nodes, placeholder
from specc.passes.slot_counts import size_at
from specc.runtime.errors import PassError

SLOTS = "counted_slots"
FLAT = {aten.view.default, aten.reshape.default}
SPLIT_HEADS = (1, 2)  # the axes that a model swaps between [1, slots, heads, size] and [1, heads, slots, size]


def emit(
    g: Graph,
    op: str,
    inputs: Sequence[Node | None],
    shape: Sequence[int],
    dtype: torch.dtype = torch.float32,
    **attributes: Any,
) -> Node:
    """Insert a call of an ONNX operator with one result.

    Args:
        g: Where to insert it, at the graph's insertion point.
        op: The operator, `Name` or `domain::Name`.
        inputs: Its inputs by place; None leaves one out.
        shape: The result's shape. A size that changes at run time may be stated as any number.
        dtype: The result's type.
        attributes: The operator's attributes.
    """
    result = torch.onnx.ops.symbolic(op, _proxies(g, inputs), attributes, dtype=dtype, shape=list(shape))
    return _node(result)


def emit_several(
    g: Graph, op: str, inputs: Sequence[Node | None], shapes: Sequence[list[int]], **attributes: Any
) -> Node:
    """Insert a call of an ONNX operator with several results, all float32; `getitem` takes one of them.

    Args:
        g: Where to insert it, at the graph's insertion point.
        op: The operator, `Name` or `domain::Name`.
        inputs: Its inputs by place; None leaves one out.
        shapes: The results' shapes. A size that changes at run time may be stated as any number.
        attributes: The operator's attributes.
    """
    dtypes = [torch.float32] * len(shapes)
    return _node(
        torch.onnx.ops.symbolic_multi_out(op, _proxies(g, inputs), attributes, dtypes=dtypes, shapes=list(shapes))
    )


class Emitted(NamedTuple):
    """An ONNX operator that stands in a graph: its inputs by place, and its attributes, numbers only."""

    inputs: list[Node | None]
    attributes: dict[str, Any]


def emitted(node: Node, op: str) -> Emitted | None:
    """Return what was given to `emit_several` for a node; None if it is not a call of that operator."""
    if node.target is not torch.ops.onnx_symbolic._symbolic_multi_out.default:
        return None
    details: dict[str, Any] = dict(node.kwargs)
    domain = details["domain"]
    if op != (f"{domain}::{node.args[1]}" if domain else node.args[1]):
        return None
    stores = {"i": details["attr_ints"], "f": details["attr_floats"]}
    places = zip(details["attr_keys"], details["attr_types"], details["attr_pos"], strict=True)
    inputs: Any = node.args[0]
    return Emitted(list(inputs), {key: stores[kind][start] for key, kind, (start, _) in places})


def _proxies(g: Graph, inputs: Sequence[Node | None]) -> list[Any]:
    """Return stand-ins for values, so that calling a torch function on them adds its operator to the graph."""
    tracer = GraphAppendingTracer(g)
    return [None if node is None else Proxy(node, tracer) for node in inputs]


def _node(result: Any) -> Node:
    """Return the node of a call's result: a function of torch that is called on proxies returns a proxy."""
    node: Node = result.node
    return node


def swap(node: Node, new: Node) -> None:
    """Give the users of `node`, its value's shape and its module path to `new`."""
    new.meta = dict(node.meta)
    node.replace_all_uses_with(new)


def swap_each(
    graph: GraphModule, target: Any, make: Callable[[Node], Node], applies: Callable[[Node], bool] = lambda _: True
) -> int:
    """Replace each call of an operator to which a rule applies by the node that `make` inserts for it.

    Returns:
        The number of calls that were replaced.
    """
    replaced = [node for node in calls(graph, target) if applies(node)]
    for node in replaced:
        with graph.graph.inserting_before(node):
            new = make(node)
        swap(node, new)
    return len(replaced)


def swap_results(node: Node, results: Sequence[Node]) -> None:
    """Replace the `getitem` calls on a node by the results of the same number, in the node's own module.

    Raises:
        PassError: something uses the node's results as a whole.
    """
    for item in list(node.users):
        if item.target is not operator.getitem:
            raise PassError(f"{item.name} uses all results of {node.name} at once; report this as a defect of specc")
        new = results[int_arg(item, 1)]
        new.meta = dict(item.meta) | {"nn_module_stack": node.meta.get("nn_module_stack")}
        item.replace_all_uses_with(new)


def shape(node: Node) -> list[int]:
    """Return a value's shape, with 0 for a size that the number of slots decides."""
    return [size if isinstance(size, int) else 0 for size in node.meta["val"].shape]


def shape_at(node: Node, slots: int) -> list[int]:
    """Return a value's shape in a block of so many slots."""
    return [size_at(size, slots) for size in node.meta["val"].shape]


def count_slots(graph: GraphModule) -> Node:
    """Return the node that counts the slots at run time, [1] int64. A graph has one at most."""
    for node in nodes(graph):
        if node.name == SLOTS:
            return node
    ids = placeholder(graph, "input_ids")
    with graph.graph.inserting_before(first_call(graph)):
        node = emit(graph.graph, "Shape", [ids], [1], torch.int64, start=1, end=2)
    node.name = SLOTS
    return node


def flat_heads(graph: GraphModule, x: Node) -> Node:
    """Return [1, heads, slots, size] as [1, slots, heads * size]: the value before the model split it, if it shows."""
    g, (_, heads, _, size) = graph.graph, shape(x)
    if x.target is not aten.transpose.int or tuple(x.args[1:]) != SPLIT_HEADS:
        return g.call_function(aten.flatten.using_ints, (g.call_function(aten.transpose.int, (x, *SPLIT_HEADS)), 2, 3))
    split = node_arg(x, 0)
    if split.target in FLAT:
        whole = node_arg(split, 0)
        if len(shape(whole)) == 3 and shape(whole)[-1] == heads * size:
            return whole
    return g.call_function(aten.flatten.using_ints, (split, 2, 3))


def whole_of_heads(flat: Sequence[Node]) -> Node | None:
    """Return the value whose slices are queries, keys and values, all of it and in this order; None if there is none.

    Args:
        flat: Queries, keys and values, [1, slots, heads * size] each, as `flat_heads` returns them.
    """
    whole = argument(flat[0], 0)
    if not isinstance(whole, Node) or any(f.target is not aten.slice.Tensor for f in flat):
        return None
    if any(f.args[:2] != (whole, 2) for f in flat):
        return None
    starts, ends = [int_arg(f, 2) for f in flat], [int_arg(f, 3) for f in flat]
    adjacent = starts == [0, *ends[:2]] and ends[2] == shape(whole)[-1]
    return whole if adjacent else None


def hand_on_heads(graph: GraphModule, old: Node, flat: Node) -> None:
    """Give the users of attention's output [1, heads, slots, size]. Those that flatten it again get the flat result.

    Args:
        graph: Where the nodes are.
        old: The output that is replaced, [1, heads, slots, size].
        flat: The new output, [1, slots, heads * size], which stands before `old`.
    """
    g, (_, heads, _, size) = graph.graph, shape(old)
    with g.inserting_before(old):
        split = g.call_function(aten.view.default, (flat, [1, -1, heads, size]))
        back = g.call_function(aten.transpose.int, (split, *SPLIT_HEADS))
    for user in list(old.users):
        if user.target is aten.transpose.int and tuple(user.args[1:]) == SPLIT_HEADS:
            for last in list(user.users):
                if last.target in FLAT and len(shape(last)) == 3 and shape(last)[-1] == heads * size:
                    last.replace_all_uses_with(flat)
    old.replace_all_uses_with(back)


def hand_on_results(graph: GraphModule, old: Node, new: Node) -> None:
    """Give the users of attention the results of the operator that replaces it, in the same order.

    Args:
        graph: Where the nodes are.
        old: The attention, whose first result is [1, heads, slots, size].
        new: The operator, whose first result is [1, slots, heads * size].
    """
    for item in list(old.users):
        if int_arg(item, 1) == 0:
            with graph.graph.inserting_before(item):
                flat = graph.graph.call_function(operator.getitem, (new, 0))
            hand_on_heads(graph, item, flat)
        else:
            item.replace_input_with(old, new)
