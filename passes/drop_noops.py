"""Calls that return what they are given."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor
from torch.fx import GraphModule, Node

from .find import aten

CASTS = {aten.to.dtype, aten.to.device, aten.to.dtype_layout, aten._to_copy.default, aten.type_as.default}
COPIES = {aten.contiguous.default, aten.clone.default, aten.alias.default, aten.detach.default, aten.detach_.default,
          aten.lift_fresh_copy.default}  # fmt: skip


@dataclass(frozen=True)
class DropNoops:
    """Casts to the type that a tensor has, copies, dropout that is off, slices of everything.

    Given:   y = x.to(float32);  z = f(y.contiguous())            x being float32
    Result:  z = f(x)
    """

    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        changed = 0
        for node in list(graph.graph.nodes):
            if node.op == "call_function" and _is_noop(node):
                for user in node.users:
                    if user.target is aten.view.default:  # it may need the layout that a copy gave
                        user.target = aten.reshape.default
                node.replace_all_uses_with(node.args[0])
                graph.graph.erase_node(node)
                changed += 1
        return changed


def _is_noop(node: Node) -> bool:
    if not node.args or not isinstance(node.args[0], Node):
        return False
    if node.target in COPIES:
        return True
    before, after = _value(node.args[0]), _value(node)
    if node.target in CASTS:
        return before is not None and after is not None and before.dtype == after.dtype
    if node.target is aten.dropout.default:
        return not node.args[2]
    if node.target is aten.slice.Tensor:
        _, _, start, end, step, *_ = (*node.args, *(None,) * 5)
        return start in (0, None) and (end is None or (isinstance(end, int) and end >= 2**62)) and step in (1, None)
    return False


def _value(node: Node) -> Any:
    value = node.meta.get("val")
    return value if isinstance(value, Tensor) else None
