"""In-place operators to those that return a new value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch.fx import GraphModule, Node

from .find import aten, replace


@dataclass(frozen=True)
class OutOfPlace:
    """An operator that writes into its input is never dead; one that returns a value is, once nobody uses it.

    Given:   div_(x, y);  z = f(x)
    Result:  w = div(x, y);  z = f(w)

    What writes into a view stays: others may see what it wrote.
    """

    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        changed, seen = 0, set()
        for node in list(graph.graph.nodes):
            seen.add(node)
            written, target = (node.args[0] if node.args else None), _out_of_place(node)
            if target is None or not isinstance(written, Node) or _is_view(written):
                continue
            new = replace(graph, node, target, node.args)
            new.kwargs = node.kwargs
            written.replace_all_uses_with(new, delete_user_cb=lambda user, before=frozenset(seen), new=new: (
                user not in before and user is not new
            ))  # fmt: skip
            graph.graph.erase_node(node)
            changed += 1
        return changed


def _out_of_place(node: Node) -> Any:
    """`aten.div.Tensor` for `aten.div_.Tensor`; None for what does not write into its first input."""
    schema = getattr(node.target, "_schema", None)
    if node.op != "call_function" or schema is None or not schema.is_mutable:
        return None
    name = schema.name.partition("::")[2]
    packet = getattr(aten, name.removesuffix("_"), None) if name.endswith("_") else None
    return getattr(packet, schema.overload_name or "default", None)


def _is_view(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return schema is not None and any(r.alias_info is not None for r in schema.returns)
