"""Put ONNX operators into a torch graph, and tell the shapes that they need.

The operators are placeholders of `torch.onnx.ops`: torch.onnx writes them into the file as they stand.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.fx import Graph, GraphModule, Node, Proxy
from torch.fx.proxy import GraphAppendingTracer

from specc.passes.arguments import int_arg
from specc.passes.find import calls, first_call, nodes, placeholder
from specc.runtime.errors import PassError

SLOTS = "counted_slots"


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


def swap_each(graph: GraphModule, target: Any, make: Callable[[Node], Node]) -> int:
    """Replace each call of an operator by the node that `make` inserts for it. Return the number of calls."""
    replaced = calls(graph, target)
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
    return [_size_at(size, slots) for size in node.meta["val"].shape]


def _size_at(size: Any, slots: int) -> int:
    """Return a size with `slots` in the place of every symbol that it has."""
    if isinstance(size, int):
        return size
    return int(size.node.expr.subs(dict.fromkeys(size.node.expr.free_symbols, slots)))


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
