"""Write out operators that are short for others."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule

from .arguments import node_arg
from .find import aten, calls, replace
from .protocol import Pass


@dataclass(frozen=True)
class CoreAten(Pass):
    """A pass that replaces operators that backends do not know.

    A backend that lacks one of them would decompose the whole program, slowly and at one size.

    Given:   square(x);  to(x, dtype)
    Result:  mul(x, x);  _to_copy(x, dtype=dtype)
    """

    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        short = calls(graph, aten.square.default, aten.to.dtype)
        for node in short:
            x = node_arg(node, 0)
            if node.target is aten.square.default:
                replace(graph, node, aten.mul.Tensor, (x, x))
            else:
                new = replace(graph, node, aten._to_copy.default, (x,))
                new.kwargs = {"dtype": node.args[1]}
        return len(short)
