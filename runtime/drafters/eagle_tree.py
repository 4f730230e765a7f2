"""Dynamic trees by a recurrent trained head (EAGLE-2, Li et al. 2024, arXiv:2406.16858).

S  size of a state
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import numpy as np

from ..draft import Draft, Outputs
from ..draft_head import running_head
from ..engine import Engine
from ..sequence import Sequence
from ..tree import Tree
from ..tree_grower import TreeGrower
from . import Drafter, Drafting, Proposal, check_counts


class EagleTree(Drafter):
    """A drafter that grows a tree level by level, and keeps the nodes that are likeliest to be accepted.

    The value of a node is the product of the head's probabilities on the way to it. Each level runs the best nodes of
    the level before, as many as one call of the engine has slots. In the end all nodes are ranked again, whatever
    their level. Nodes that can no longer be among the best are not run, which changes no draft.
    """

    def __init__(
        self, draft: Engine, feed: Engine, prefill: Engine, num_speculative_tokens: int = 11, max_depth: int = 5
    ) -> None:
        """Keep the engines and the parameters.

        Args:
            draft: a Frontier engine of the head.
            feed: an engine of the head for the tokens of a step.
            prefill: an engine of the head for many tokens.
            num_speculative_tokens: nodes below the pending token at most.
            max_depth: levels below the pending token at most.
        """
        check_counts(num_speculative_tokens=num_speculative_tokens, max_depth=max_depth)
        self.engine, self.engines = draft, sorted((draft, feed, prefill), key=lambda engine: engine.slots)
        self.nodes, self.depth = num_speculative_tokens, max_depth

    def open(self, seq: Sequence) -> EagleTreeDrafting:
        return EagleTreeDrafting(self, seq)


class EagleTreeDrafting(Drafting[EagleTree]):
    """The trees of one request."""

    def propose(self, room: int) -> Proposal:
        drafter, seq = self.drafter, self.seq
        root = (yield from running_head(drafter.engines, seq)) if room else None
        if root is None:
            return Draft.chain([seq.pending])
        candidates, grower = _Candidates(seq.pending, drafter.nodes), TreeGrower()
        grower.grow([0], candidates.parents)  # The root's row is committed.
        level, outputs = [0], root.outputs
        for depth in range(min(drafter.depth, room)):
            if depth:
                growth = grower.grow(level, candidates.parents)
                state_NS = np.stack([candidates.states[candidates.parents[slot]] for slot in level])
                outputs = yield growth.call(drafter.engine, root.cache, candidates.tokens, 1, {"state": state_NS})
            candidates.add(level, outputs)
            level = candidates.best_of_last_level(drafter.engine.slots)
            if not level:
                break
        return candidates.draft()


class _Candidates:
    """The nodes of a growing tree, in order of level.

    Attributes:
        tokens: the token of each node; node 0 is the pending token.
        parents: the parent of each node.
        states: what the children of a node read, [S] by node.
    """

    def __init__(self, pending: int, most: int) -> None:
        """Begin with the pending token. `most` is the number of nodes below it that count in the end."""
        self.tokens, self.parents, self._most = [pending], [-1], most
        self.states: dict[int, np.ndarray] = {}
        self._values = [0.0]  # Logarithms.
        self._last_level = range(0)

    def add(self, level: list[int], outputs: Outputs) -> None:
        """Add the children of nodes: the likeliest tokens after each.

        Args:
            level: the nodes.
            outputs: those of the run in which node `level[i]` had slot i.
        """
        ranks, top_ids, logprobs = outputs.ranked()
        states_NS, first = outputs.next_state_NS, len(self.tokens)
        assert states_NS is not None
        for row, slot in enumerate(level):
            self.states[slot] = states_NS[row].copy()
            for rank in range(min(ranks, self._most)):
                self.tokens.append(top_ids[row, rank])
                self.parents.append(slot)
                self._values.append(self._values[slot] + logprobs[row, rank])
        self._last_level = range(first, len(self.tokens))

    def best_of_last_level(self, most: int) -> list[int]:
        """Return the nodes that were added last and are among the best of all, `most` of them, in ascending order."""
        best = (node for node in self._best() if node in self._last_level)
        return sorted(node for node, _ in zip(best, range(most), strict=False))

    def draft(self) -> Draft:
        """Return the draft of the best nodes."""
        slots = [0, *sorted(self._best())]
        place = {node: slot for slot, node in enumerate(slots)}
        parents = tuple([place.get(self.parents[node], -1) for node in slots])
        return Draft(tuple([self.tokens[node] for node in slots]), Tree(parents))

    def _best(self) -> Iterator[int]:
        """Yield the nodes of the largest values, best first. Of equals the earlier is better, so parents come first."""
        nodes = range(1, len(self.tokens))
        yield from heapq.nsmallest(self._most, nodes, key=lambda node: (-self._values[node], node))
