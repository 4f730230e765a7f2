"""Export's run-time assertions, and what only they keep alive."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule


@dataclass(frozen=True)
class DropAsserts:
    """The captured graph states what it assumed; a block's shapes are fixed later, and checked then.

    Given:   _assert_tensor_metadata(x, …);  y = f(x)
    Result:  y = f(x)
    """

    optional: ClassVar[bool] = True

    def __call__(self, graph: GraphModule) -> int:
        found = [n for n in graph.graph.nodes if "assert" in str(n.target) or "_guards_fn" in str(n.target)]
        for node in reversed(found):
            graph.graph.erase_node(node)
        return len(found)
