"""Fuse RMSNorm to one node."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch.fx import GraphModule, Node

from .arguments import argument, float_arg, node_arg, operands, optional_node
from .find import ADD, MUL, RMS_NORM, aten, calls, constant, replace, tensor_value
from .protocol import Miss, Pass

SQUARES = (aten.pow.Tensor_Scalar, aten.square.default, MUL)
MEANS = (aten.mean.dim, aten.sum.dim_IntList)
REACH = 6  # calls from a mean to the product that scales by it: more is not a norm's


@dataclass(frozen=True)
class FuseRMSNorm(Pass):
    """A pass that fuses RMSNorm as models write it, with or without a weight, and torch's own operator with one.

    Given:   y = weight * (x * rsqrt(mean(x ** 2, -1) + eps))
    Result:  y = specc.rms_norm(x, weight, eps)
    """

    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        changed = 0
        for root in calls(graph, aten.rsqrt.default):
            norm = _match(root)
            if isinstance(norm, Miss):
                continue
            last, weight = _weighted(norm.product)
            if weight is None:
                weight = constant(graph, "rms_ones", torch.ones(norm.x.meta["val"].shape[-1]))
            replace(graph, last, RMS_NORM, (norm.x, weight, norm.eps))
            changed += 1
        for node in calls(graph, aten.rms_norm.default):
            weight = optional_node(node, 2)
            if _torch_miss(node) is None:
                eps = torch.finfo(torch.float32).eps if argument(node, 3) is None else float_arg(node, 3)
                replace(graph, node, RMS_NORM, (node_arg(node, 0), weight, eps))
                changed += 1
        return changed

    def nearest_miss(self, graph: GraphModule) -> Miss | None:
        """Look for values that are scaled by a function of the mean of their own squares."""
        misses = [miss for node in calls(graph, aten.rms_norm.default) if (miss := _torch_miss(node))]
        for mean in calls(graph, *MEANS):
            path = _to_scaled(mean)
            if path:
                root = next((node for node in path if node.target is aten.rsqrt.default), None)
                match = _match(root) if root else _unknown_form(path)
                misses += [match] if isinstance(match, Miss) else []
        return max(misses, key=lambda miss: miss.steps, default=None)


@dataclass(frozen=True)
class _Norm:
    """A normed value without its weight: `product` is x * rsqrt(mean(x ** 2) + eps)."""

    x: Node
    eps: float
    product: Node


def _match(root: Node) -> _Norm | Miss:
    """Match the pattern around a call of rsqrt, from the inside out."""
    total = node_arg(root, 0)
    mean, eps = argument(total, 0), argument(total, 1)
    if total.target is not ADD or not isinstance(mean, Node) or not isinstance(eps, float):
        return Miss(root, f"takes {total.name}, which is not the sum of a mean and a number", steps=1)
    if mean.target is not aten.mean.dim or argument(mean, 1) != [-1] or argument(mean, 2) is not True:
        return Miss(root, f"takes {mean.name}, which is not a mean over the last axis that keeps it", steps=2)
    x = _squared(node_arg(mean, 0))
    if x is None:
        return Miss(root, f"takes the mean of {node_arg(mean, 0).name}, which is not a square", steps=3)
    for user in root.users:
        if user.target is MUL and set(user.args[:2]) == {x, root}:
            return _Norm(x, eps, user)
    return Miss(root, f"does not multiply {x.name}, whose squares it takes", steps=4)


def _squared(node: Node) -> Node | None:
    """Return what `node` is the square of, or None if it is not a square."""
    x = argument(node, 0)
    if node.target not in SQUARES or not isinstance(x, Node):
        return None
    exponent = argument(node, 1)
    is_square = node.target is aten.square.default or (exponent is x if node.target is MUL else exponent == 2)
    return x if is_square else None


def _weighted(normed: Node) -> tuple[Node, Node | None]:
    """Return the product with a weight vector and that vector, or the normed value and None.

    The weight is taken in if the product is the only use of the normed value.
    """
    users = list(normed.users)
    if len(users) == 1 and users[0].target is MUL:
        weights = [operand for operand in operands(users[0]) if operand is not normed]
        value = tensor_value(weights[0]) if weights else None
        if value is not None and value.ndim == 1:
            return users[0], weights[0]
    return normed, None


def _torch_miss(node: Node) -> Miss | None:
    """Say why a call of torch's rms_norm is not fused; None if it is."""
    shape = argument(node, 1)
    if not isinstance(shape, (list, tuple)) or len(shape) != 1:
        return Miss(node, f"normalises over the axes {shape}; only the last one is fused", steps=2)
    return Miss(node, "has no weight", steps=4) if argument(node, 2) is None else None


def _to_scaled(mean: Node) -> list[Node]:
    """Return the calls from a mean of squares to a product with, or a quotient of, what was squared; else nothing."""
    x = _squared(node_arg(mean, 0))
    if x is None:
        return []
    for path in _paths_from(mean, REACH):
        last = path[-1]
        if last.target in (MUL, aten.div.Tensor) and x in operands(last):
            return path
    return []


def _paths_from(node: Node, length: int) -> Iterator[list[Node]]:
    """Yield the chains of users that begin behind `node`, each with at most `length` calls."""
    for user in node.users:
        if user.op == "call_function":
            yield [user]
            if length > 1:
                yield from ([user, *rest] for rest in _paths_from(user, length - 1))


def _unknown_form(path: list[Node]) -> Miss:
    operators = ", ".join(str(node.target).split(".")[1] for node in path)
    return Miss(path[-1], f"scales a value by its mean square through {operators}; a rsqrt is expected")
