"""A static tree, filled level by level by a draft.

It serves SpecTr (Sun et al. 2023, arXiv:2310.15141), whose tree is several chains, and RSD-C (Jeon et al. 2024,
arXiv:2402.14160), whose nodes of one level have equally many children.
"""

from __future__ import annotations

from collections.abc import Sequence as Tokens

from ..call import Growth
from ..draft import Draft, Outputs
from ..draft_tree import running_root
from ..draws import DrawnProbs, Draws
from ..engine import Engine
from ..rng import Use
from ..sequence import Sequence
from ..tree import Tree
from ..tree_grower import TreeGrower
from . import Drafter, Drafting, Proposal


class StaticTree(Drafter):
    """A drafter that fills one static tree level by level: a child of rank r gets the r-th likeliest token.

    If it samples, siblings are drawn from the draft's distribution, with replacement or without.
    """

    def __init__(
        self,
        draft: Engine,
        tree: Tokens[int],
        prefill: Engine | None = None,
        sample: bool = False,
        replacement: bool = False,
    ) -> None:
        """Plan the engine calls that fill the tree.

        Args:
            draft: a Frontier engine. Without `prefill` it runs over the target's cache.
            tree: the parent vector that is baked into the verify engine.
            prefill: an engine that fills the draft's own cache with the prompt.
            sample: draw the siblings if the request samples.
            replacement: draw them independently, so that two of them may hold one token.
        """
        self.engine, self.prefill, self.tree = draft, prefill, Tree(tuple(tree))
        self.sample, self.replacement = sample, replacement
        grower = TreeGrower()
        self.root = grower.grow([0], self.tree.parents)
        self.growths: list[Growth] = []
        for depth in range(1, int(self.tree.depth.max())):
            level = [s for s, below in enumerate(self.tree.children) if below and self.tree.depth[s] == depth]
            for start in range(0, len(level), draft.slots):
                self.growths.append(grower.grow(level[start : start + draft.slots], self.tree.parents))

    def open(self, seq: Sequence) -> StaticTreeDrafting:
        return StaticTreeDrafting(self, seq)


class StaticTreeDrafting(Drafting[StaticTree]):
    """The trees of one request, and the draft's rows of its text."""

    def propose(self, room: int) -> Proposal:
        drafter, seq = self.drafter, self.seq
        engine, cache = drafter.engine, seq.caches[drafter.engine.block.cache]
        tokens = [seq.pending] * drafter.tree.slots
        draws: dict[int, Draws] = {}
        if drafter.tree.slots == 1:
            return Draft(tuple(tokens), drafter.tree)
        root = yield from running_root(engine, drafter.prefill, seq, cache, drafter.root)
        fill = self._sample if drafter.sample and not seq.sampling.greedy else self._rank
        fill(tokens, draws, root.outputs, root.row, (0,))
        for growth in drafter.growths:
            outputs = yield growth.call(engine, cache, tokens, root.committed)
            fill(tokens, draws, outputs, 0, growth.slots)
        return Draft(tuple(tokens), drafter.tree, DrawnProbs(draws))

    def _rank(
        self, tokens: list[int], draws: dict[int, Draws], outputs: Outputs, start: int, slots: Tokens[int]
    ) -> None:
        """Give the children of some slots the likeliest tokens, from the draft's outputs from row `start` on."""
        children = self.drafter.tree.children
        ranks, top_ids, _ = outputs.ranked()
        for row, slot in enumerate(slots, start):
            for rank, child in enumerate(children[slot][:ranks]):
                tokens[child] = top_ids[row, rank]

    def _sample(
        self, tokens: list[int], draws: dict[int, Draws], outputs: Outputs, start: int, slots: Tokens[int]
    ) -> None:
        """Draw the tokens of the children of some slots, and keep the distributions."""
        for row, slot in enumerate(slots, start):
            self._sample_children(tokens, draws, outputs, row, slot)

    def _sample_children(
        self, tokens: list[int], draws: dict[int, Draws], outputs: Outputs, row: int, slot: int
    ) -> None:
        """Draw the tokens of a slot's children, from a row of the draft's outputs."""
        drafter, sampling = self.drafter, self.seq.sampling
        assert outputs.logits_NV is not None
        rng = sampling.rng.at(len(self.seq.tokens) + int(drafter.tree.depth[slot]), Use.DRAFT, slot)
        own = draws[slot] = sampling.draws(outputs.logits_NV[row], rng)
        for child in drafter.tree.children[slot]:
            if drafter.replacement:
                tokens[child] = own.pick()
            elif not own.is_empty:
                tokens[child] = own.take()[0]
