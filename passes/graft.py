"""Splice what a trained head reads of the model into the model's graph."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch.fx import GraphModule

from specc.runtime.block import STATE

from .find import layer_outputs, outputs, set_outputs, side_by_side, splice
from .protocol import Pass


@dataclass(frozen=True)
class Graft(Pass):
    """A pass that lets the model return the states of a trained head beside what it returns anyway.

    Given:   a = layers.0(x);  b = layers.1(a);  {logits};  the module: taps -> linear(taps, weight)
    Result:  state = linear(cat(a, b), NAME.weight);  {logits, state:NAME}               with taps=(0, 1)

    Attributes:
        name: The head. Its weights get this name in the graph.
        taps: The layers after which the module reads the model's states. -1 is the last one, before the final norm;
            the number of layers is the state behind that norm.
        module: The graph of the module, whose one input is the states side by side, [1, slots, taps * size].
    """

    name: str
    taps: tuple[int, ...]
    module: GraphModule = field(repr=False, compare=False)

    def __call__(self, graph: GraphModule) -> int:
        states = layer_outputs(graph, self.taps)
        with graph.graph.inserting_before(graph.graph.output_node()):
            state = splice(graph, self.name, self.module, side_by_side(graph, states))
        set_outputs(graph, outputs(graph) | {f"{STATE}{self.name}": state})
        return 1
