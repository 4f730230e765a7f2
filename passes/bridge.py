"""Let a trained module stand in the place of layers that a block leaves out."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch.fx import GraphModule

from .find import layer_outputs, side_by_side, splice
from .protocol import Pass


@dataclass(frozen=True)
class Bridge(Pass):
    """A pass that replaces the hidden states after a layer by what a trained module makes of those after some layers.

    Given:   a = layers.0(x);  b = layers.1(a);  c = layers.4(b);  the module: taps -> linear(taps, weight)
    Result:  c = layers.4(linear(cat(a, b), NAME_bridge.weight))         with taps=(0, 1)

    It runs after the passes that leave layers out.

    Attributes:
        name: The head.
        taps: The layers whose states the module reads. It stands behind the last of them.
        module: The graph of the module, whose one input is the states side by side, [1, slots, taps * size].
    """

    name: str
    taps: tuple[int, ...]
    module: GraphModule = field(repr=False, compare=False)

    def __call__(self, graph: GraphModule) -> int:
        states = layer_outputs(graph, self.taps)
        users = sorted(states[-1].users)
        with graph.graph.inserting_before(users[0]):
            bridged = splice(graph, f"{self.name}_bridge", self.module, side_by_side(graph, states))
        bridged.meta["val"] = states[-1].meta["val"]
        for user in users:
            user.replace_input_with(states[-1], bridged)
        return 1
