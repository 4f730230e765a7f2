"""Heads that guess several tokens from one state (Medusa, Cai et al. 2024, arXiv:2401.10774)."""

from __future__ import annotations

from collections.abc import Sequence as Tokens

from ..call import Call
from ..draft import ONE_SLOT, Draft
from ..engine import Engine
from ..sequence import Sequence
from ..tree import Tree
from . import Drafter, Drafting, Proposal


class Medusa(Drafter):
    """A drafter that fills one static tree: a child of rank r in level d gets the r-th likeliest token of head d."""

    def __init__(self, draft: Engine, tree: Tokens[int]) -> None:
        """Keep the engine and the tree.

        Args:
            draft: the engine of the stacked heads, with one slot.
            tree: the parent vector that is baked into the verify engine.
        """
        self.engine, self.tree = draft, Tree(tuple(tree))
        self.places = list(zip((self.tree.depth - 1).tolist(), self.tree.rank, strict=True))[1:]

    def open(self, seq: Sequence) -> MedusaDrafting:
        return MedusaDrafting(self, seq)


class MedusaDrafting(Drafting[Medusa]):
    """The trees of one request."""

    def propose(self, room: int) -> Proposal:
        drafter, seq = self.drafter, self.seq
        states, rows = seq.cache.states.get(drafter.engine.block.model), len(seq.cache)
        if states is None or not rows or not room:
            return Draft.chain([seq.pending])
        inputs = {"state": states[rows - 1 : rows]}  # The state from which the target chose the pending token.
        outputs = yield Call(drafter.engine, seq.cache, 0, [seq.pending], ONE_SLOT, inputs)
        assert outputs.top_ids_NK is not None
        tokens_DK = outputs.top_ids_NK[0]
        return Draft((seq.pending, *(int(tokens_DK[place]) for place in drafter.places)), drafter.tree)
