"""Leave out attention, the MLP, or both, of chosen layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch.fx import GraphModule, Node

from specc.runtime.errors import PassError

from .find import ADD, calls, layers
from .protocol import Pass
from .residual import residual_sums


@dataclass(frozen=True)
class SkipSublayers(Pass):
    """A pass that removes sublayers: what is not run adds nothing to the residual stream.

    A layer in both lists is skipped whole.

    Given:   a = x + attention(x);  b = a + mlp(a)
    Result:  b = x + mlp(x)                                            with attention=(0,)
    """

    attention: tuple[int, ...] = ()
    mlp: tuple[int, ...] = ()
    # Whether the graph has an input with what the layers said of the past. Then none of them needs to attend.
    reads_states: bool = field(default=False, repr=False)

    def __call__(self, graph: GraphModule) -> int:
        path_by_layer = layers(graph)
        self._check(path_by_layer)
        skipped = [("attention", i) for i in self.attention] + [("mlp", i) for i in self.mlp]
        # Find all sums before any is cut: a stream that was cut no longer looks like a layer's.
        sums = [residual_sums(graph, path_by_layer[i])[kind] for kind, i in skipped]
        branches: set[Node] = {branch for _, branch in sums}
        for add in calls(graph, ADD):
            match [addend for addend in add.args if addend not in branches]:
                case []:
                    branches.add(add)  # attention + MLP of a parallel layer, and both are left out
                case [Node() as rest]:
                    add.replace_all_uses_with(rest)
        return len(sums)

    def _check(self, path_by_layer: Mapping[int, str]) -> None:
        """Refuse layers that the graph does not have, and a model that no longer attends. Raises PassError."""
        absent = [i for i in (*self.attention, *self.mlp) if i not in path_by_layer]
        if absent:
            raise PassError(f"no layer {absent[0]}; the graph has {min(path_by_layer)}..{max(path_by_layer)}")
        if set(self.attention) >= path_by_layer.keys() and not self.reads_states:
            raise PassError("nothing would be left that attends to the past; keep one layer's attention")
