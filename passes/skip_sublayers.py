"""Leave out attention or MLP of chosen layers, or both."""

from __future__ import annotations

from dataclasses import dataclass

from torch.fx import GraphModule, Node

from specc.runtime.errors import PassError

from .find import ADD, addends, calls, layers


@dataclass(frozen=True)
class SkipSublayers:
    """A sublayer that is not run adds nothing to the residual stream. A layer in both lists is skipped whole.

    Given:   a = x + attention(x);  b = a + mlp(a)
    Result:  b = x + mlp(x)                                            with attention=(0,)
    """

    attention: tuple[int, ...] = ()
    mlp: tuple[int, ...] = ()

    def __call__(self, graph: GraphModule) -> int:
        found = layers(graph)
        wanted = [(i, kind) for kind in ("attention", "mlp") for i in getattr(self, kind)]
        if absent := [i for i, _ in wanted if i not in found]:
            raise PassError(f"no layer {absent[0]}; the graph has {min(found)}..{max(found)}")
        if len({i for i in self.attention if i in self.mlp}) == len(found) or set(self.attention) >= found.keys():
            raise PassError("nothing would be left that attends to the past; keep one layer's attention")
        # all found before any is cut: a cut stream no longer looks like a layer's
        cuts = [addends(graph, found[i])[kind] for i, kind in wanted]
        gone: set[Node] = {branch for _, branch in cuts}
        for add in calls(graph, ADD):
            left = [a for a in add.args[:2] if a not in gone]
            if not left:
                gone.add(add)  # a parallel layer's attention + MLP, both left out
            elif len(left) == 1 and isinstance(left[0], Node):
                add.replace_all_uses_with(left[0])
        return len(cuts)
