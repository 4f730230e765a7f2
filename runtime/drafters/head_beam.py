"""Beam search by a recurrent trained head (Recurrent Drafter, Zhang et al. 2024, arXiv:2403.09919).

The beams' common beginnings are drafted once, as one prefix tree.

S  size of a state
"""

from __future__ import annotations

import heapq

import numpy as np

from ..draft import Draft, Outputs
from ..draft_head import reading_engines, running_head
from ..engine import Engine
from ..sequence import Sequence
from ..tree import Tree
from ..tree_grower import TreeGrower
from . import Drafter, Drafting, Proposal, check_counts


class HeadBeam(Drafter):
    """A drafter that keeps the likeliest texts of one length, and drafts those of the greatest length."""

    def __init__(self, draft: Engine, feed: Engine, prefill: Engine, beams: int = 4, max_depth: int = 4) -> None:
        """Keep the engines and the parameters.

        Args:
            draft: a Frontier engine of the head, of `beams` slots.
            feed: an engine of the head for the tokens of a step.
            prefill: an engine of the head for many tokens.
            beams: texts that are kept.
            max_depth: tokens of a text at most.
        """
        check_counts(beams=beams, max_depth=max_depth)
        self.engine, self.engines = draft, reading_engines(draft, feed, prefill)
        self.beams, self.depth = min(beams, draft.slots), max_depth

    def open(self, seq: Sequence) -> HeadBeamDrafting:
        return HeadBeamDrafting(self, seq)


class HeadBeamDrafting(Drafting[HeadBeam]):
    """The beams of one request."""

    def propose(self, room: int) -> Proposal:
        drafter, seq = self.drafter, self.seq
        root = (yield from running_head(drafter.engines, seq)) if room else None
        if root is None:
            return Draft.chain([seq.pending])
        beams, grower = _Beams(seq.pending, drafter.beams), TreeGrower()
        grower.grow([0], beams.parents)  # The root's row is committed.
        outputs = root.outputs
        for depth in range(min(drafter.depth, room)):
            if depth:
                state_NS = np.stack([beams.states[beams.parents[node]] for node in beams.last])
                growth = grower.grow(beams.last, beams.parents)
                outputs = yield growth.call(drafter.engine, root.cache, beams.tokens, 1, {"state": state_NS})
            beams.extend(outputs)
        return beams.draft()


class _Beams:
    """The texts of a beam search as nodes of a tree, in order of level.

    Attributes:
        tokens: the token of each node; node 0 is the pending token.
        parents: the parent of each node.
        states: what the children of a node read, [S] by node.
        last: the last nodes of the texts that are kept.
    """

    def __init__(self, pending: int, count: int) -> None:
        self.tokens, self.parents, self.last, self._count = [pending], [-1], [0], count
        self.states: dict[int, np.ndarray] = {}
        self._values = [0.0]  # Logarithms of probabilities.

    def extend(self, outputs: Outputs) -> None:
        """Keep the likeliest texts that are one token longer.

        Args:
            outputs: those of the run in which node `last[i]` had slot i.
        """
        ranks, top_ids, logprobs = outputs.ranked()
        assert outputs.next_state_NS is not None
        options = []
        for row, node in enumerate(self.last):
            self.states[node] = outputs.next_state_NS[row].copy()
            options += [(self._values[node] + logprobs[row, rank], -node, row, rank) for rank in range(ranks)]
        self.last = []
        for value, negative, row, rank in sorted(heapq.nlargest(self._count, options), key=lambda option: -option[1]):
            self.last.append(len(self.tokens))
            self.tokens.append(top_ids[row, rank])
            self.parents.append(-negative)
            self._values.append(value)

    def draft(self) -> Draft:
        """Return the prefix tree of the texts. What no kept text begins with is left out."""
        nodes = set(self.last)
        for node in range(len(self.parents) - 1, 0, -1):
            if node in nodes:
                nodes.add(self.parents[node])
        slots = sorted(nodes | {0})
        place = {node: slot for slot, node in enumerate(slots)}
        parents = tuple([place.get(self.parents[node], -1) for node in slots])
        return Draft(tuple([self.tokens[node] for node in slots]), Tree(parents))
