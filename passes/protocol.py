"""The contract of a pass, and the record of a place that a pass could not rewrite."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

from torch.fx import GraphModule, Node


@dataclass(frozen=True)
class Miss:
    """A place that looks like what a pass rewrites, with the reason why the pass left it.

    Attributes:
        node: Where the place is.
        reason: Why the pattern does not fit, as the end of a sentence about the node.
        steps: How many parts of the pattern fit. The miss with the most steps is the nearest one.
    """

    node: Node
    reason: str
    steps: int = 0

    def __str__(self) -> str:
        """Name the node, the module that it lies in, and the reason."""
        modules = [path for path, _ in (self.node.meta.get("nn_module_stack") or {}).values()]
        place = f"{self.node.name} in {modules[-1]}" if modules and modules[-1] else self.node.name
        return f"{place} {self.reason}"


class Pass(Protocol):
    """A pass: it rewrites a captured graph. Passes inherit from this class, so that its defaults apply.

    Attributes:
        optional: Whether the pass may find nothing to change. If not, finding nothing is an error.
    """

    optional: ClassVar[bool] = False

    def __call__(self, graph: GraphModule) -> int:
        """Edit the graph in place and return the number of places that changed."""
        ...

    def nearest_miss(self, graph: GraphModule) -> Miss | None:
        """Look for what the pass should have changed. `run` asks for it when the pass changed nothing.

        Returns:
            The place that comes nearest to the pattern, or None if the graph has nothing of the kind.
        """
        return None
