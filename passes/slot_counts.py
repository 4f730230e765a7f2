"""The number of slots in the shapes of values. A captured graph has a symbol for it, and some passes fix it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.fx.node import map_arg

NONE: Mapping[Node, Node] = MappingProxyType({})


def size_at(size: Any, slots: int) -> int:
    """Return a size of a shape with `slots` in the place of every symbol that it has."""
    if isinstance(size, int):
        return size
    return int(size.node.expr.subs(dict.fromkeys(size.node.expr.free_symbols, slots)))


def slot_axis(node: Node) -> int | None:
    """Return the axis of a node's value that has a row for each slot; None if there is none, or more than one."""
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        return None
    open_sizes: list[tuple[int, Any]] = [(a, size) for a, size in enumerate(value.shape) if not isinstance(size, int)]
    if len(open_sizes) != 1:
        return None
    ((axis, size),) = open_sizes
    return axis if size.node.expr.is_symbol else None


def fixed_slots(states: Node) -> int | None:
    """Return the number of slots of hidden states [1, slots, size]; None if it is not fixed."""
    value = states.meta.get("val")
    slots = value.shape[1] if isinstance(value, Tensor) and value.dim() > 1 else None
    return slots if isinstance(slots, int) else None


def fix_slots(node: Node, slots: int, arguments: Mapping[Node, Node] = NONE) -> None:
    """Let a node compute a fixed number of slots.

    Args:
        node: The node, whose value has an open number of slots, or none.
        slots: The number.
        arguments: The nodes that take the places of some of its arguments. Numbers of slots become `slots`.
    """

    def argument(old: Node) -> Any:
        value = old.meta.get("val")
        return size_at(value, slots) if isinstance(value, torch.SymInt) else arguments.get(old, old)

    node.args, node.kwargs = map_arg(node.args, argument), map_arg(node.kwargs, argument)
    node.meta["val"] = _value_at(node.meta.get("val"), slots)


def _value_at(value: Any, slots: int) -> Any:
    """Return what stands for a value, or for several, with a fixed number of slots."""
    if isinstance(value, Tensor):
        return value.new_empty([size_at(size, slots) for size in value.shape])
    if isinstance(value, torch.SymInt):
        return size_at(value, slots)
    return type(value)(_value_at(item, slots) for item in value) if isinstance(value, (list, tuple)) else value
