"""Dynamic trees by a trained head with two experts (Jakiro, Huang et al. 2025, arXiv:2502.06282).

A row of the head's outputs has three guesses. The first one's likeliest token is a node, the second one's are its
siblings, and the third one's stand one place further.
"""

from __future__ import annotations

from collections.abc import Sequence as Items

import numpy as np

from ..draft import Draft, Outputs
from ..draft_candidates import Candidates
from ..draft_head import running_head
from ..node_budget import NodeBudget
from ..sequence import Sequence
from ..tree_grower import TreeGrower
from . import Drafting, Proposal
from .eagle_tree import EagleTree

FIRST, OTHER, AHEAD = range(3)  # The guesses of a row.
LEAST = 1e-9  # A probability that all tokens but one share at least, since it is a divisor.


class Jakiro(EagleTree):
    """A drafter that grows a tree as EAGLE-2 does. Its last call makes two levels, so it takes one call less."""

    def open(self, seq: Sequence) -> JakiroDrafting:
        return JakiroDrafting(self, seq)


class JakiroDrafting(Drafting[Jakiro]):
    """The trees of one request."""

    def propose(self, room: int) -> Proposal:
        drafter, seq = self.drafter, self.seq
        levels = min(drafter.depth, room)
        root = (yield from running_head(drafter.engines, seq)) if levels else None
        if root is None:
            return Draft.chain([seq.pending])
        nodes, grower = ExpertNodes(seq.pending, drafter.budget), TreeGrower()
        grower.grow([0], nodes.parents)  # The root's row is committed.
        level, outputs = [0], root.outputs
        for number in range(max(1, levels - 1)):
            if number:
                level = nodes.best_of_last_level(drafter.engine.slots)
                if not level:
                    return nodes.draft()
                growth = grower.grow(level, nodes.parents)
                state_NS = np.stack([nodes.read_states[node] for node in level])
                outputs = yield growth.call(drafter.engine, root.cache, nodes.tokens, 1, {"state": state_NS})
            nodes.add_experts(level, outputs)
        if levels > 1:
            nodes.add_ahead(level, outputs)
        return nodes.draft()


class ExpertNodes(Candidates):
    """Nodes of a tree, whose siblings come from two experts.

    Attributes:
        read_states: what a node reads beside its token, [S] by node.
    """

    def __init__(self, pending: int, budget: NodeBudget) -> None:
        super().__init__(pending, budget)
        self.read_states: dict[int, np.ndarray] = {}

    def add_experts(self, level: Items[int], outputs: Outputs) -> None:
        """Add the children of nodes: the first expert's likeliest token after each, and those of the other one.

        A probability of the other expert counts where the first one's token is wrong.

        Args:
            level: the nodes.
            outputs: those of the run in which node `level[i]` had slot i.
        """
        top_ids, probs = _guesses(outputs)
        states_NS = outputs.next_state_NS
        assert states_NS is not None
        self.begin_level()
        for row, node in enumerate(level):
            first_state, other_state = states_NS[row].reshape(2, -1).copy()
            token, chance = top_ids[row][FIRST][0], min(1.0, probs[row][FIRST][0])
            self._add_reading(node, token, chance, first_state)
            siblings = dict(zip(top_ids[row][OTHER], probs[row][OTHER], strict=True))
            left = max(LEAST, 1 - siblings.pop(token, 0.0))
            for sibling, probability in siblings.items():
                self._add_reading(node, sibling, (1 - chance) * min(1.0, probability / left), other_state)

    def add_ahead(self, level: Items[int], outputs: Outputs) -> None:
        """Add a level below the last one: the guesses one place further, below the best nodes of the last level.

        Args:
            level: the parents of the last level.
            outputs: see `add_experts`.
        """
        top_ids, probs = _guesses(outputs)
        row_of = {node: row for row, node in enumerate(level)}
        nodes = self.best_of_last_level(len(self.tokens))
        self.begin_level()
        for node in nodes:
            row = row_of[self.parents[node]]
            for token, probability in zip(top_ids[row][AHEAD], probs[row][AHEAD], strict=True):
                self.add_child(node, token, probability)

    def _add_reading(self, parent: int, token: int, probability: float, state: np.ndarray) -> None:
        """Add a node that reads a part of its parent's state. The head reads the first half of its input."""
        child = self.add_child(parent, token, probability)
        self.read_states[child] = np.concatenate([state, np.zeros_like(state)])


def _guesses(outputs: Outputs) -> tuple[list[list[list[int]]], list[list[list[float]]]]:
    """Return the likeliest tokens of each guess of each row, and their probabilities."""
    assert outputs.top_ids_NK is not None and outputs.top_logprobs_NK is not None
    return outputs.top_ids_NK.tolist(), np.exp(outputs.top_logprobs_NK).tolist()
