"""Replace operators that write into their input by those that return a new value."""

from __future__ import annotations

from collections.abc import Callable, Collection, Set
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

from torch import FunctionSchema
from torch.fx import GraphModule, Node

from .arguments import argument, node_arg
from .find import aten, nodes, replace
from .protocol import Pass


class _Call(NamedTuple):
    """A call that can stand for one that writes. `written` is the value that was written into."""

    target: Callable[..., Any]
    args: tuple[Any, ...]
    written: Node


@dataclass(frozen=True)
class OutOfPlace(Pass):
    """A pass that removes writes. An operator that writes is never dead code; one that returns a value is, once unused.

    Given:   div_(x, y);  z = f(x)                 copy_(x[a:b], y);  z = f(x)
    Result:  w = div(x, y);  z = f(w)              w = slice_scatter(x, y, a, b);  z = f(w)

    A write that others see stays: one into a view otherwise, or into a tensor of which a view is read later.
    """

    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        changed = 0
        before: set[Node] = set()
        for node in nodes(graph):
            before.add(node)
            call = _into_slice(node, before) or _out_of_place(node, before)
            if call is None:
                continue
            new = replace(graph, node, call.target, call.args)
            new.kwargs, new.meta["val"] = node.kwargs, call.written.meta["val"]
            later = [user for user in call.written.users if user not in before and user is not new]
            for user in later:
                user.replace_input_with(call.written, new)
            graph.graph.erase_node(node)
            changed += 1
        return changed


def _out_of_place(node: Node, before: Set[Node]) -> _Call | None:
    """Return `aten.div.Tensor` for `aten.div_.Tensor`; None if nothing is written, others see it, or no twin exists."""
    schema, written = _schema(node), argument(node, 0)
    if node.op != "call_function" or schema is None or not schema.is_mutable or not isinstance(written, Node):
        return None
    name = schema.name.partition("::")[2]
    packet = getattr(aten, name.removesuffix("_"), None) if name.endswith("_") else None
    target = getattr(packet, schema.overload_name or "default", None)
    is_seen = _is_view(written) or _viewed_later(written, before - {node})
    return _Call(target, node.args, written) if target and not is_seen else None


def _viewed_later(node: Node, before: Collection[Node]) -> bool:
    """Tell whether a view of a node's value, taken among the nodes `before`, has a user behind them."""
    views = [user for user in node.users if user in before and _is_view(user)]
    return any(_viewed_later(view, before) or not all(user in before for user in view.users) for view in views)


def _into_slice(node: Node, before: Collection[Node]) -> _Call | None:
    """Return a slice_scatter for a copy into a slice that is the only view of its tensor among the nodes `before`."""
    if node.target is not aten.copy_.default or node_arg(node, 0).target is not aten.slice.Tensor:
        return None
    part, source = node_arg(node, 0), node_arg(node, 1)
    whole = node_arg(part, 0)
    alone = not _is_view(whole) and all(user is part or not _is_view(user) for user in whole.users if user in before)
    values = source.meta["val"], part.meta["val"]
    same_kind = values[0].shape == values[1].shape and values[0].dtype == values[1].dtype
    if not alone or not same_kind or len(part.users) > 1 or node.users:  # its users read the slice, not the whole
        return None
    return _Call(aten.slice_scatter.default, (whole, source, *part.args[1:]), whole)


def _is_view(node: Node) -> bool:
    """Tell whether a node's result shares memory with one of its inputs."""
    schema = _schema(node)
    return schema is not None and any(result.alias_info is not None for result in schema.returns)


def _schema(node: Node) -> FunctionSchema | None:
    """Return the schema of the operator that a node calls, or None for a Python function or another kind of node."""
    schema: FunctionSchema | None = getattr(node.target, "_schema", None)
    return schema
