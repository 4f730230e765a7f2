"""DySpec's tree by a heap: the likeliest node comes next (Xiong et al. 2024, arXiv:2410.11744)."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from ..draft import Draft, Outputs
from ..draft_tree import running_root
from ..draws import DrawnProbs, Draws
from ..rng import Use
from ..sequence import Sequence
from ..tree import Tree
from ..tree_grower import TreeGrower
from . import Proposal
from .dynamic_tree import DynamicTree, DynamicTreeDrafting, likeliest, sampled

Children = Iterator[tuple[int, float]]  # tokens, each with its share of the probability that was left before it


class HeapTree(DynamicTree):
    """A drafter that adds one node at a time to a tree: the one that is likeliest to be reached and accepted.

    A heap holds the places where a node can come: below a node that has no child yet, or beside the children that it
    has. The value of a place is the probability that verification comes there. A node whose first child is added costs
    a call of the draft, so a tree of n nodes costs n calls at most. `DynamicTree` costs one call a level instead.
    """

    def open(self, seq: Sequence) -> HeapTreeDrafting:
        return HeapTreeDrafting(self, seq)


class HeapTreeDrafting(DynamicTreeDrafting):
    """The trees of one request, and the draft's rows of its text."""

    def propose(self, room: int) -> Proposal:
        drafter, seq = self.drafter, self.seq
        cache = seq.caches[drafter.engine.block.cache]
        grower, tokens, parents, depths = TreeGrower(), [seq.pending], [-1], [0]
        draws: dict[int, Draws] = {}
        first = grower.grow([0], parents)
        committed, outputs, row = yield from running_root(drafter.engine, drafter.prefill, seq, cache, first)
        # The value of each place, negative for heapq, the slot above it, and the children to come if that slot has run.
        heap: list[tuple[float, int, Children | None]] = [(-1.0, 0, self._children(outputs, row, 0, 0, draws))]
        while heap and heap[0][0] < 0 and len(tokens) < drafter.slots:
            negative, slot, children = heapq.heappop(heap)
            if children is None:
                outputs = yield grower.grow([slot], parents).call(drafter.engine, cache, tokens, committed)
                children = self._children(outputs, 0, slot, depths[slot], draws)
            token, share = next(children, (None, 0.0))
            if token is None or depths[slot] == min(drafter.depth, room):
                continue
            child = len(tokens)
            tokens.append(token)
            parents.append(slot)
            depths.append(depths[slot] + 1)
            heapq.heappush(heap, (negative * (1 - share), slot, children))
            if depths[child] < min(drafter.depth, room):
                heapq.heappush(heap, (negative * share, child, None))
        return Draft(tuple(tokens), Tree(tuple(parents)), DrawnProbs(draws))

    def _children(self, outputs: Outputs, row: int, slot: int, depth: int, draws: dict[int, Draws]) -> Children:
        """Return the children of a slot that has run, drawn one by one, or the likeliest ones.

        Args:
            outputs: the outputs of the call that ran the slot.
            row: the slot's row in them.
            slot: the slot.
            depth: its depth in the tree.
            draws: gets the distribution of the children if they are drawn.
        """
        seq = self.seq
        if not self.drafter.sample or seq.sampling.greedy:
            return iter(list(likeliest(outputs, row)))
        assert outputs.logits_NV is not None
        rng = seq.sampling.rng.at(len(seq.tokens) + depth, Use.DRAFT, slot)
        draws[slot] = seq.sampling.draws(outputs.logits_NV[row], rng)
        return sampled(draws[slot])
