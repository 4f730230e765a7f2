"""Typed access to the arguments of a node. torch.fx types every argument as a union of all that a graph can hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch.fx import Node

from specc.runtime.errors import PassError


def argument(node: Node, index: int) -> Any:
    """Return an argument of a node, or None if the call leaves it out. A negative index counts from the end."""
    return node.args[index] if -len(node.args) <= index < len(node.args) else None


def node_arg(node: Node, index: int) -> Node:
    """Return an argument that is the value of another node.

    Raises:
        PassError: The argument is a number, a list, or missing.
    """
    value = argument(node, index)
    if not isinstance(value, Node):
        raise _wrong_type(node, index, value, "a node")
    return value


def optional_node(node: Node, index: int) -> Node | None:
    """Return an argument that is the value of another node, or None if it is missing or None.

    Raises:
        PassError: The argument is something else.
    """
    return None if argument(node, index) is None else node_arg(node, index)


def nodes_arg(node: Node, index: int) -> list[Node]:
    """Return an argument that is a list of nodes, such as the first one of `cat`.

    Raises:
        PassError: The argument is not a list, or holds something that is not a node.
    """
    values = argument(node, index)
    if not isinstance(values, (list, tuple)) or not all(isinstance(value, Node) for value in values):
        raise _wrong_type(node, index, values, "a list of nodes")
    return list(values)


def operands(node: Node) -> list[Node]:
    """Return the operands of a binary call that are nodes: two, or fewer where an operand is a number."""
    return [value for value in node.args[:2] if isinstance(value, Node)]


def int_arg(node: Node, index: int) -> int:
    """Return an argument that is a whole number.

    Raises:
        PassError: The argument is something else.
    """
    value = argument(node, index)
    if not isinstance(value, int):
        raise _wrong_type(node, index, value, "an int")
    return value


def float_arg(node: Node, index: int) -> float:
    """Return an argument that is a number, as a float.

    Raises:
        PassError: The argument is something else.
    """
    value = argument(node, index)
    if not isinstance(value, (int, float)):
        raise _wrong_type(node, index, value, "a number")
    return float(value)


def ints_arg(node: Node, index: int) -> list[int]:
    """Return an argument that is a list of whole numbers, such as a shape.

    Raises:
        PassError: The argument is not a list, or one of its items is not a whole number.
    """
    values = argument(node, index)
    if not isinstance(values, (list, tuple)) or not all(isinstance(value, int) for value in values):
        raise _wrong_type(node, index, values, "a list of ints")
    return list(values)


def _wrong_type(node: Node, index: int, value: Any, expected: str) -> PassError:
    return PassError(f"{node.name}: argument {index} is {value!r}; a pass expected {expected}")


@dataclass(frozen=True, kw_only=True)
class HeadsAndSettings:
    """The arguments that every operator of attention has; see `operators.attention` for their meaning."""

    query: Node
    key: Node
    value: Node
    sinks: Node | None
    scale: float
    window: int
    softcap: float
    layer: int


def _heads_and_settings(node: Node, sinks: int) -> dict[str, Any]:
    """Read the arguments of `HeadsAndSettings`. `sinks` is the position of the argument of that name."""
    return {
        "query": node_arg(node, 0),
        "key": node_arg(node, 1),
        "value": node_arg(node, 2),
        "sinks": optional_node(node, sinks),
        "scale": float_arg(node, sinks + 1),
        "window": int_arg(node, sinks + 2),
        "softcap": float_arg(node, sinks + 3),
        "layer": int_arg(node, sinks + 4),
    }


@dataclass(frozen=True, kw_only=True)
class AttentionCall(HeadsAndSettings):
    """The arguments of a call of `specc::attention`; see `operators.attention` for their meaning."""

    @classmethod
    def of(cls, node: Node) -> AttentionCall:
        """Read the arguments of a node."""
        return cls(
            **_heads_and_settings(node, 3),
        )


@dataclass(frozen=True, kw_only=True)
class CachedAttentionCall(HeadsAndSettings):
    """The arguments of a call of `specc::cached_attention`; see `operators.cached_attention` for their meaning."""

    past_key: Node
    past_value: Node
    past_len: Node
    mask: Node
    positions: Node

    @classmethod
    def of(cls, node: Node) -> CachedAttentionCall:
        """Read the arguments of a node."""
        return cls(
            past_key=node_arg(node, 3),
            past_value=node_arg(node, 4),
            past_len=node_arg(node, 5),
            mask=node_arg(node, 6),
            positions=node_arg(node, 7),
            **_heads_and_settings(node, 8),
        )

    @property
    def caches(self) -> list[Node]:
        """The cache's keys and values."""
        return [self.past_key, self.past_value]


@dataclass(frozen=True, kw_only=True)
class LanesAttentionCall(HeadsAndSettings):
    """The arguments of a call of `specc::lanes_attention`; see `operators.lanes_attention` for their meaning."""

    pasts: list[Node]
    past_len: Node
    widths: Node
    mask: Node | None
    positions: Node

    @classmethod
    def of(cls, node: Node) -> LanesAttentionCall:
        """Read the arguments of a node."""
        return cls(
            pasts=nodes_arg(node, 3),
            past_len=node_arg(node, 4),
            widths=node_arg(node, 5),
            mask=optional_node(node, 6),
            positions=node_arg(node, 7),
            **_heads_and_settings(node, 8),
        )

    @property
    def caches(self) -> list[Node]:
        """Keys and values of each lane's cache."""
        return self.pasts

    @property
    def lanes(self) -> int:
        """The number of lanes."""
        return len(self.pasts) // 2


@dataclass(frozen=True, kw_only=True)
class RotaryCall:
    """The arguments of a call of `specc::rotary`; see `operators.rotary` for their meaning."""

    x: Node
    cos: Node
    sin: Node
    positions: Node
    interleaved: bool

    @classmethod
    def of(cls, node: Node) -> RotaryCall:
        """Read the arguments of a node."""
        return cls(
            x=node_arg(node, 0),
            cos=node_arg(node, 1),
            sin=node_arg(node, 2),
            positions=node_arg(node, 3),
            interleaved=bool(argument(node, 4)),
        )

    @property
    def rotated_sizes(self) -> int:
        """The number of sizes of a head that turn: two for each column of the tables."""
        return 2 * int(self.cos.meta["val"].shape[1])
