"""The residual sums of a layer: where attention and the MLP are added to the stream of hidden states.

A layer computes, in sequence,            or in parallel,

    a = x + attention(norm(x))                b = x + attention(norm(x)) + mlp(norm(x))
    b = a + mlp(norm(a))

and models write the sums in any order and nesting. The sums are read from the layer's output back to its input.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

from torch.fx import GraphModule, Node

from specc.runtime.errors import PassError

from .arguments import argument, node_arg, operands
from .find import ADD, ATTENTION, SAME_VALUES, layer_output, paths

ROLES = ("input", "attention", "mlp")


class ResidualSum(NamedTuple):
    """An add of a layer's residual stream, and the operand of it that is the branch: what a sublayer adds."""

    add: Node
    branch: Node


class _Leaf(NamedTuple):
    """An addend of a sum that nested adds make.

    add: the add that the addend is an operand of. operand: the addend as it is written there. value: the same number
    behind the layer's own views of it.
    """

    add: Node
    operand: Node
    value: Node


def residual_sums(graph: GraphModule, path: str) -> dict[str, ResidualSum]:
    """Return the residual sums of the layer at module path `path`, by role: "input", "attention", "mlp".

    They are followed from the layer's output through the adds of the layer's own code. In each sum one addend is the
    stream: either what enters the layer, or the value that the sum's other addends are computed from. The others are
    branches. A branch that reaches attention without passing another sum is attention's, the other is the MLP's.

    Raises:
        PassError: Two addends have one role, or a role has no addend.
    """
    sums: dict[str, ResidualSum] = {}
    end: Node | None = layer_output(graph, path)
    while end is not None:
        leaves = _leaves(end, path)
        streams = _streams(leaves, path)
        borders = {leaf.add for leaf in leaves}.union(streams)
        end = None
        for leaf in leaves:
            role = _role(leaf, streams, borders, path)
            if role in sums or (role == "stream" and end is not None):
                raise PassError(f"{path}: two addends of its residual sum look like its {role}")
            if role == "stream":
                end = leaf.value
            else:
                sums[role] = ResidualSum(leaf.add, leaf.operand)
    if missing := [role for role in sorted(ROLES) if role not in sums]:
        raise PassError(f"{path}: its residual sum has no addend for {', '.join(missing)}")
    return sums


def _streams(leaves: Sequence[_Leaf], path: str) -> list[Node]:
    """Return the addends that carry the stream: from outside the layer, or needed by every other addend."""
    outside = [leaf.value for leaf in leaves if path not in paths(leaf.value)]
    if outside:
        return outside
    above = {leaf.value: upstream(leaf.value, path) for leaf in leaves}
    return [value for value in above if all(value in nodes for nodes in above.values())]


def _role(leaf: _Leaf, streams: Collection[Node], borders: Collection[Node], path: str) -> str:
    """Classify an addend as the layer's "input", the "stream" between two sums, "attention" or "mlp"."""
    if leaf.value in streams:
        return "stream" if path in paths(leaf.value) else "input"
    attends = any(node.target is ATTENTION for node in upstream(leaf.value, path, borders))
    return "attention" if attends else "mlp"


def _leaves(end: Node, path: str) -> list[_Leaf]:
    """Return the addends of the sum that `end` is computed from, with the layer's own nested adds undone."""
    add = _last_add(end, path)
    if add is None:
        return []
    leaves: list[_Leaf] = []
    todo = [(add, operand) for operand in operands(add)]
    while todo:
        add, operand = todo.pop()
        value = operand
        while value.target in SAME_VALUES and _is_own(value, path):
            value = node_arg(value, 0)
        if _adds(value, path):
            todo += [(value, inner) for inner in operands(value)]
        else:
            leaves.append(_Leaf(add, operand, value))
    return leaves


def _last_add(end: Node, path: str) -> Node | None:
    """Return the layer's own add that `end` is, or is a function of; None if there is none within the layer."""
    while not _adds(end, path):
        first = argument(end, 0)
        if not isinstance(first, Node):
            return None
        end = first
    return end


def _is_own(node: Node, path: str) -> bool:
    """Tell whether the layer's own code makes the node, not a module inside it."""
    return paths(node)[-1:] == [path]


def _adds(node: Node, path: str) -> bool:
    """Tell whether the node is an add of two values in the layer's own code."""
    return _is_own(node, path) and node.target is ADD and len(operands(node)) == 2


def upstream(node: Node, path: str, stop: Collection[Node] = ()) -> set[Node]:
    """Return the nodes that `node` is computed from, itself included, up to those that enter the layer or `stop`."""
    reached: set[Node] = set()
    todo = [node]
    while todo:
        current = todo.pop()
        if current not in reached and current not in stop:
            reached.add(current)
            todo += current.all_input_nodes if path in paths(current) else []
    return reached
