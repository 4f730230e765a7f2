"""Splice what a trained head reads of the model into the model's graph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from torch.fx import GraphModule, Node

from specc.runtime.block import STATE

from .find import aten, fork, layer_outputs, nodes, outputs, set_outputs
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
        graph.add_module(self.name, fork(self.module))  # a later pass may change the weights of this copy
        with graph.graph.inserting_before(graph.graph.output_node()):
            state = self._copy(graph, _side_by_side(graph, states))
        set_outputs(graph, outputs(graph) | {f"{STATE}{self.name}": state})
        return 1

    def _copy(self, graph: GraphModule, taps: Node) -> Node:
        """Copy the module's nodes to the graph's insertion point, and return the copy of what it returns."""
        copies: dict[Node, Node] = {}
        for node in nodes(self.module):
            if node.op == "placeholder":
                copies[node] = taps
            elif node.op != "output":
                copies[node] = graph.graph.node_copy(node, copies.__getitem__)
            if node.op == "get_attr":
                copies[node].target = f"{self.name}.{node.target}"
        (state,) = outputs(self.module).values()
        return copies[state]


def _side_by_side(graph: GraphModule, states: Sequence[Node]) -> Node:
    """Join states [1, slots, size] to one, [1, slots, states * size]."""
    if len(states) == 1:
        return states[0]
    joined = graph.graph.call_function(aten.cat.default, (list(states), -1))
    value = states[0].meta["val"]
    joined.meta["val"] = value.new_empty((*value.shape[:-1], sum(state.meta["val"].shape[-1] for state in states)))
    return joined
