"""RMSNorm as one node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from .find import ADD, MUL, aten, calls, constant, replace


@dataclass(frozen=True)
class FuseRMSNorm:
    """
    Given:   y = weight * (x * rsqrt(mean(x ** 2, -1) + eps))
    Result:  y = specc.rms_norm(x, weight, eps)
    """

    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        changed = 0
        for root in calls(graph, aten.rsqrt.default):
            if (found := _normed(root)) is None:
                continue
            x, eps, normed = found
            last, weight = _weighted(normed)
            if weight is None:
                weight = constant(graph, "rms_ones", torch.ones(x.meta["val"].shape[-1]))
            replace(graph, last, torch.ops.specc.rms_norm.default, (x, weight, eps))
            changed += 1
        for node in calls(graph, aten.rms_norm.default):
            x, shape, weight, eps = (*node.args, None, None)[:4]
            if len(shape) == 1 and weight is not None:
                eps = torch.finfo(torch.float32).eps if eps is None else eps
                replace(graph, node, torch.ops.specc.rms_norm.default, (x, weight, eps))
                changed += 1
        return changed


def _normed(root: Node) -> tuple[Node, float, Node] | None:
    """From rsqrt: what is normed, eps, and the product of the two."""
    match root.args[0]:
        case Node(target=t, args=(Node(target=m, args=(Node() as power, [-1], True, *_)), float(eps), *_)) if (
            t is ADD and m is aten.mean.dim
        ):
            pass
        case _:
            return None
    square = power.target is aten.pow.Tensor_Scalar and power.args[1] == 2
    if not (square or (power.target is MUL and power.args[0] is power.args[1])):
        return None
    x = power.args[0]
    for user in root.users:
        if user.target is MUL and set(user.args[:2]) == {x, root} and isinstance(x, Node):
            return x, eps, user
    return None


def _weighted(normed: Node) -> tuple[Node, Node | None]:
    """The product with a weight vector, if that is all that the normed value is used for."""
    if len(normed.users) == 1 and (user := next(iter(normed.users))).target is MUL:
        weight = next((a for a in user.args[:2] if a is not normed), None)
        if isinstance(weight, Node) and isinstance(v := weight.meta.get("val"), Tensor) and v.ndim == 1:
            return user, weight
    return normed, None
