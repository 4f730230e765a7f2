"""In-place operators to those that return a new value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch.fx import GraphModule, Node

from .find import aten, replace


@dataclass(frozen=True)
class OutOfPlace:
    """An operator that writes into its input is never dead; one that returns a value is, once nobody uses it.

    Given:   div_(x, y);  z = f(x)                 copy_(x[a:b], y);  z = f(x)
    Result:  w = div(x, y);  z = f(w)              w = slice_scatter(x, y, a, b);  z = f(w)

    What writes into another view stays: others may see what it wrote.
    """

    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        changed, seen = 0, set()
        for node in list(graph.graph.nodes):
            seen.add(node)
            target, args = _into_slice(node, seen) or _out_of_place(node) or (None, ())
            if target is None:
                continue
            written, new = args[0], replace(graph, node, target, args)
            new.kwargs, new.meta["val"] = node.kwargs, written.meta["val"]
            written.replace_all_uses_with(new, delete_user_cb=lambda user, before=frozenset(seen), new=new: (
                user not in before and user is not new
            ))  # fmt: skip
            graph.graph.erase_node(node)
            changed += 1
        return changed


def _out_of_place(node: Node) -> tuple[Any, tuple[Any, ...]] | None:
    """`aten.div.Tensor` for `aten.div_.Tensor`; None for what does not write into its first input, or into a view."""
    schema = getattr(node.target, "_schema", None)
    if node.op != "call_function" or schema is None or not schema.is_mutable or not node.args:
        return None
    name = schema.name.partition("::")[2]
    packet = getattr(aten, name.removesuffix("_"), None) if name.endswith("_") else None
    target = getattr(packet, schema.overload_name or "default", None)
    written = node.args[0]
    return (target, node.args) if target and isinstance(written, Node) and not _is_view(written) else None


def _into_slice(node: Node, before: set[Node]) -> tuple[Any, tuple[Any, ...]] | None:
    """A slice_scatter for a copy into a slice that is the only view taken of its tensor so far."""
    if node.target is not aten.copy_.default or node.args[0].target is not aten.slice.Tensor:
        return None
    part, source = node.args[:2]
    whole = part.args[0]
    alone = not _is_view(whole) and all(u is part or not _is_view(u) for u in whole.users if u in before)
    same = source.meta["val"].shape == part.meta["val"].shape and source.meta["val"].dtype == part.meta["val"].dtype
    if not alone or not same or len(part.users) > 1:
        return None
    return aten.slice_scatter.default, (whole, source, *part.args[1:])


def _is_view(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and any(r.alias_info is not None for r in schema.returns)
