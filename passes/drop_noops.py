"""Drop calls that return their input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule, Node

from .arguments import argument, node_arg
from .find import aten, nodes, tensor_value
from .protocol import Pass

CASTS = {aten.to.dtype, aten.to.device, aten.to.dtype_layout, aten._to_copy.default, aten.type_as.default}
COPIES = {
    aten.contiguous.default,
    aten.clone.default,
    aten.alias.default,
    aten.detach.default,
    aten.detach_.default,
    aten.lift_fresh_copy.default,
}
OPEN_END = 1 << 62  # torch.export writes the largest int64 for a slice without an end


@dataclass(frozen=True)
class DropNoops(Pass):
    """A pass that removes casts to the type that a tensor has, copies, dropout that is off, and slices of everything.

    Given:   y = x.to(float32);  z = f(y.contiguous())            x being float32
    Result:  z = f(x)
    """

    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        changed = 0
        for node in nodes(graph):
            if node.op == "call_function" and _is_noop(node):
                for user in node.users:
                    if user.target is aten.view.default:  # a view may need the layout that the copy gave
                        user.target = aten.reshape.default
                node.replace_all_uses_with(node_arg(node, 0))
                graph.graph.erase_node(node)
                changed += 1
        return changed


def _is_noop(node: Node) -> bool:
    """Tell whether a call returns the values of its first argument, in the type that they have."""
    source = argument(node, 0)
    if not isinstance(source, Node):
        return False
    if node.target in COPIES:
        return True
    if node.target in CASTS:
        before, after = tensor_value(source), tensor_value(node)
        return before is not None and after is not None and before.dtype == after.dtype
    if node.target is aten.dropout.default:
        return not argument(node, 2)
    if node.target is aten.slice.Tensor:
        start, end, step = argument(node, 2), argument(node, 3), argument(node, 4)
        to_end = end is None or (isinstance(end, int) and end >= OPEN_END)
        return start in (0, None) and to_end and step in (1, None)
    return False
