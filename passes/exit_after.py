"""Leave the model after its first layers."""

from __future__ import annotations

from dataclasses import dataclass

from torch.fx import GraphModule

from specc.runtime.errors import PassError

from .find import layer_output, layers
from .protocol import Pass


@dataclass(frozen=True)
class ExitAfter(Pass):
    """A pass that cuts the model after its first `layers` layers. The model's own norm and head follow.

    Given:   a = layers.0(x);  b = layers.1(a);  y = head(norm(b))
    Result:  a = layers.0(x);  y = head(norm(a))                       with layers=1
    """

    layers: int

    def __call__(self, graph: GraphModule) -> int:
        path_by_layer = layers(graph)
        count = len(path_by_layer)
        if not 1 <= self.layers < count:
            raise PassError(f"no exit after layer {self.layers}; the graph has {count} layers: take 1..{count - 1}")
        in_order = [path_by_layer[i] for i in sorted(path_by_layer)]
        exit_output = layer_output(graph, in_order[self.layers - 1])
        layer_output(graph, in_order[-1]).replace_all_uses_with(exit_output)
        return count - self.layers
