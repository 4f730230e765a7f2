"""Drop the run-time assertions of torch.export, and what only they keep alive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule

from .find import nodes
from .protocol import Pass


@dataclass(frozen=True)
class DropAsserts(Pass):
    """A pass that removes the assertions by which a captured graph states what it assumed.

    They are not needed: a block's shapes are fixed later, and checked then.

    Given:   _assert_tensor_metadata(x, …);  y = f(x)
    Result:  y = f(x)
    """

    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        asserts = [n for n in nodes(graph) if "assert" in str(n.target) or "_guards_fn" in str(n.target)]
        for node in reversed(asserts):  # from the last on, so that none has users when it is erased
            graph.graph.erase_node(node)
        return len(asserts)
