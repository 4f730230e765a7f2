"""Leave the model early."""

from __future__ import annotations

from dataclasses import dataclass

from torch.fx import GraphModule

from specc.runtime.errors import PassError

from .find import layer_output, layers


@dataclass(frozen=True)
class ExitAfter:
    """The first `layers` layers, then the model's own norm and head.

    Given:   a = layers.0(x);  b = layers.1(a);  y = head(norm(b))
    Result:  a = layers.0(x);  y = head(norm(a))                       with layers=1
    """

    layers: int

    def __call__(self, graph: GraphModule) -> int:
        found = layers(graph)
        if not 1 <= self.layers < len(found):
            raise PassError(
                f"no exit after layer {self.layers}; the graph has {len(found)} layers: take 1..{len(found) - 1}"
            )
        path = [found[i] for i in sorted(found)]
        layer_output(graph, path[-1]).replace_all_uses_with(layer_output(graph, path[self.layers - 1]))
        return len(found) - self.layers
