"""Dynamic trees by a recurrent trained head (EAGLE-2, Li et al. 2024, arXiv:2406.16858)."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeVar

import numpy as np

from ..call import Call
from ..draft import Draft, Outputs
from ..draft_candidates import Candidates
from ..draft_head import reading_engines, running_head
from ..engine import Engine
from ..node_budget import NodeBudget, StepCosts
from ..sequence import Sequence
from ..tree_grower import TreeGrower
from . import Drafter, Drafting, Proposal, check_counts

D = TypeVar("D", bound="EagleTree")


class EagleTree(Drafter):
    """A drafter that grows a tree level by level, and keeps the nodes that are likeliest to be accepted.

    The value of a node is the product of the head's probabilities on the way to it. Each level runs the best nodes of
    the level before, as many as one call of the engine has slots. In the end all nodes are ranked again, whatever
    their level. Nodes that can no longer be among the best are not run.

    With the costs of steps, a tree has only as many nodes as pay. The paper's trees always have their full size.
    """

    def __init__(
        self,
        draft: Engine,
        feed: Engine,
        prefill: Engine,
        num_speculative_tokens: int = 11,
        max_depth: int = 5,
        step_costs: StepCosts = (),
    ) -> None:
        """Keep the engines and the parameters.

        Args:
            draft: a Frontier engine of the head.
            feed: an engine of the head for the tokens of a step.
            prefill: an engine of the head for many tokens.
            num_speculative_tokens: nodes below the pending token at most.
            max_depth: levels below the pending token at most that the head drafts.
            step_costs: see `NodeBudget`.
        """
        check_counts(max_depth=max_depth)
        self.engine, self.engines = draft, reading_engines(draft, feed, prefill)
        self.budget, self.depth = NodeBudget(num_speculative_tokens, step_costs), max_depth

    def open(self, seq: Sequence) -> Drafting[Any]:
        return EagleTreeDrafting(self, seq)


class EagleTreeDrafting(Drafting[D]):
    """The trees of one request."""

    def candidates(self, room: int) -> Candidates:
        """Return the nodes that do not need the head: the pending token alone.

        Args:
            room: how many levels are worth drafting.
        """
        return Candidates(self.seq.pending, self.drafter.budget)

    def propose(self, room: int) -> Proposal:
        candidates = yield from self.grow(room)
        return Draft.chain([self.seq.pending]) if candidates is None else candidates.draft()

    def grow(self, room: int) -> Generator[Call, Outputs, Candidates | None]:
        """Yield the calls that run the head, and return the nodes that it met.

        Args:
            room: how many levels are worth drafting.

        Returns:
            The nodes; None if nothing is worth drafting, or the text has no token with a state before it.
        """
        drafter, seq = self.drafter, self.seq
        root = (yield from running_head(drafter.engines, seq)) if room else None
        if root is None:
            return None
        candidates, grower = self.candidates(room), TreeGrower()
        grower.grow([0], candidates.parents)  # The root's row is committed.
        level, outputs = [0], root.outputs
        for depth in range(min(drafter.depth, room)):
            if depth:
                growth = grower.grow(level, candidates.parents)
                state_NS = np.stack([candidates.states[candidates.parents[node]] for node in level])
                outputs = yield growth.call(drafter.engine, root.cache, candidates.tokens, 1, {"state": state_NS})
            candidates.add_level(level, outputs)
            level = candidates.best_of_last_level(drafter.engine.slots)
            if not level:
                break
        return candidates
