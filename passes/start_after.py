"""Begin behind the model's first layers, with their hidden states in the place of tokens."""

from __future__ import annotations

from dataclasses import dataclass

from torch.fx import GraphModule

from specc.runtime.block import HIDDEN
from specc.runtime.errors import PassError

from .find import layer_output, layers, new_input
from .protocol import Pass


@dataclass(frozen=True)
class StartAfter(Pass):
    """A pass that replaces the model's first `layers` layers by an input: the hidden states that they return.

    Given:   a = layers.0(embed(input_ids));  b = layers.1(a);  y = head(norm(b))
    Result:  b = layers.1(hidden);  y = head(norm(b))         with layers=1, hidden [1, slots, size] being a new input

    The input `input_ids` stays, also if nothing reads it any more.
    """

    layers: int

    def __call__(self, graph: GraphModule) -> int:
        path_by_layer = layers(graph)
        count = len(path_by_layer)
        if not 1 <= self.layers < count:
            raise PassError(f"no start after layer {self.layers}; the graph has {count} layers: take 1..{count - 1}")
        in_order = [path_by_layer[i] for i in sorted(path_by_layer)]
        states = layer_output(graph, in_order[self.layers - 1])
        states.replace_all_uses_with(new_input(graph, HIDDEN, states.meta["val"]))
        return self.layers
