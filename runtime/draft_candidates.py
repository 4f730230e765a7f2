"""The candidates for a draft tree: nodes from several sources, each with the chance that it is accepted.

S  size of a state
"""

from __future__ import annotations

from collections.abc import Sequence as Items

import numpy as np

from .draft import Draft, Outputs
from .node_budget import NodeBudget
from .tree import Tree


class Candidates:
    """The nodes of a growing tree. A node comes after its parent, and stands for one path of tokens.

    Attributes:
        tokens: the token of each node; node 0 is the pending token.
        parents: the parent of each node.
        values: the chance of each node to be accepted. If two sources propose one path, their shares add up.
        states: what the children of a node read, [S] by node.
    """

    def __init__(self, pending: int, budget: NodeBudget, share: float = 1.0) -> None:
        """Begin with the pending token.

        Args:
            pending: the token.
            budget: chooses the nodes that count in the end.
            share: the chance that the text goes on as the head says, and not as a copy says.
        """
        self.tokens, self.parents, self.values = [pending], [-1], [1.0]
        self.states: dict[int, np.ndarray] = {}
        self._budget = budget
        self._reach = {0: share}  # The chance of a node by the head alone.
        self._slot_of: dict[tuple[int, int], int] = {}  # By parent and token.
        self._last_level: set[int] = set()

    def add_path(self, tokens: Items[int], values: Items[float]) -> None:
        """Add a path below the pending token, with the share of each node."""
        node = 0
        for token, value in zip(tokens, values, strict=True):
            node = self._add(node, token, value)

    def add_level(self, level: Items[int], outputs: Outputs) -> None:
        """Add the children of nodes: the head's likeliest tokens after each.

        Args:
            level: the nodes.
            outputs: those of the run in which node `level[i]` had slot i.
        """
        ranks, top_ids, top_logprobs = outputs.ranked()
        states_NS = outputs.next_state_NS
        assert states_NS is not None
        probs_NK = np.exp(np.asarray(top_logprobs))
        self.begin_level()
        for row, node in enumerate(level):
            self.states[node] = states_NS[row].copy()
            for rank in range(min(ranks, self._budget.nodes)):
                self.add_child(node, top_ids[row, rank], float(probs_NK[row, rank]))

    def begin_level(self) -> None:
        """Begin the next level of the tree, which is the last one then."""
        self._last_level = set()

    def add_child(self, parent: int, token: int, probability: float) -> int:
        """Add a node of the last level that the head drafts, and return it.

        Args:
            parent: the node before it.
            token: its token.
            probability: the chance that it is accepted if its parent is.
        """
        reach = self._reach[parent] * min(1.0, probability)
        child = self._add(parent, token, reach)
        self._reach[child] = reach
        self._last_level.add(child)
        return child

    def best_of_last_level(self, most: int) -> list[int]:
        """Return the nodes of the last level that are to be drafted as yet, `most` of them, in ascending order."""
        best = [node for node in self._budget.best(self.values) if node in self._last_level]
        return sorted(best[:most])

    def draft(self) -> Draft:
        """Return the draft of the best nodes."""
        nodes = [0, *sorted(self._budget.best(self.values))]
        slot = {node: i for i, node in enumerate(nodes)}
        parents = tuple([slot.get(self.parents[node], -1) for node in nodes])
        values = tuple([self.values[node] for node in nodes])
        return Draft(tuple([self.tokens[node] for node in nodes]), Tree(parents), values=values)

    def _add(self, parent: int, token: int, value: float) -> int:
        """Add a node, or add to the value of the one that is there, and return it."""
        node = self._slot_of.setdefault((parent, token), len(self.tokens))
        if node == len(self.tokens):
            self.tokens.append(token)
            self.parents.append(parent)
            self.values.append(0.0)
        self.values[node] += value
        return node
