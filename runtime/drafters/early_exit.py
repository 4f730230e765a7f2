"""Early-exit self-speculation on a static tree.

The draft runs the target's first layers, then the target's own norm and head (LayerSkip, Elhoushi et al. 2024,
arXiv:2404.16710). Its likeliest tokens fill a static tree (Medusa, Cai et al. 2024, arXiv:2401.10774).
"""

from __future__ import annotations

from collections.abc import Sequence as Tokens

from ..call import Growth
from ..draft import Draft
from ..engine import Engine
from ..sequence import Sequence
from ..tree import Tree
from ..tree_grower import TreeGrower
from . import Drafter, Drafting, Proposal


class EarlyExit(Drafter):
    """A drafter that fills one static tree level by level: a child of rank r gets the r-th likeliest token."""

    def __init__(self, draft: Engine, tree: Tokens[int], sample: bool = False) -> None:
        """Plan the engine calls that fill the tree.

        Args:
            draft: a Frontier engine over the target's cache.
            tree: the parent vector that is baked into the verify engine.
            sample: draw the siblings without replacement if the request samples.
        """
        self.engine, self.tree, self.sample = draft, Tree(tuple(tree)), sample
        grower = TreeGrower()
        self.growths: list[Growth] = []
        for depth in range(self.tree.depth.max()):
            level = [s for s, below in enumerate(self.tree.children) if below and self.tree.depth[s] == depth]
            for start in range(0, len(level), draft.slots):
                self.growths.append(grower.grow(level[start : start + draft.slots], self.tree.parents))

    def open(self, seq: Sequence) -> EarlyExitDrafting:
        return EarlyExitDrafting(self, seq)


class EarlyExitDrafting(Drafting[EarlyExit]):
    """Calls over the target's cache of one request."""

    def propose(self, room: int) -> Proposal:
        drafter, seq, sampling = self.drafter, self.seq, self.seq.sampling
        tree, engine, cache, sample = drafter.tree, drafter.engine, seq.cache, drafter.sample and not sampling.greedy
        tokens, probs = [seq.pending] * tree.slots, {}
        for growth in drafter.growths:
            outputs = yield growth.call(engine, cache, tokens)
            ranks, top_ids, _ = outputs.ranked()
            for row, slot in enumerate(growth.slots):
                children = tree.children[slot]
                if sample:
                    assert outputs.logits_NV is not None
                    probs[slot] = sampling.probs(outputs.logits_NV[row])
                    position = len(seq.tokens) + int(tree.depth[slot])
                    draws = sampling.children(probs[slot], len(children), position, slot)
                    for child, token in zip(children, draws, strict=False):
                        tokens[child] = token
                else:
                    for rank, child in enumerate(children[:ranks]):
                        tokens[child] = top_ids[row, rank]
        return Draft(tuple(tokens), tree, probs)
