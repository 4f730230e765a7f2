"""Which static tree pays, by measured costs: the tree of every width, and the width that gives most tokens a second."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from specc.runtime.tree import Tree


@dataclass(frozen=True)
class Costs:
    """widths: milliseconds of verify by its slots, as measured. call: of a call of the drafter's engine, 0 where it has
    none; slots: tokens of one level that a call takes."""

    widths: Mapping[int, float]
    call: float = 0.0
    slots: int = 1

    def verify(self, slots: int) -> float:
        """Kernels work in tiles, so between two widths a step costs what the wider one does."""
        return self.widths[min(w for w in self.widths if w >= slots)]

    def draft(self, tree: Tree) -> float:
        """The tokens that have children are run level by level."""
        inner = Counter(int(tree.depth[slot]) for slot in range(tree.slots) if tree.children[slot])
        return self.call * sum(ceil(count / self.slots) for count in inner.values())


def best_tree(rates: Sequence[float], costs: Costs, depth: int) -> Tree:
    """The tree of at most the widest width's slots, and `depth` levels, that gives most tokens a millisecond.

    rates: how often the child of rank 0, 1, … is right.
    """
    trees = {Tree.best(rates, n, d) for n in range(2, max(costs.widths) + 1) for d in range(1, depth + 1)}
    return max(trees, key=lambda tree: speed(tree, rates, costs))


def speed(tree: Tree, rates: Sequence[float], costs: Costs) -> float:
    """Tokens a millisecond."""
    return expected(tree, rates) / (costs.verify(tree.slots) + costs.draft(tree))


def expected(tree: Tree, rates: Sequence[float]) -> float:
    """Tokens a step: 1, and each slot with the probability that its path is right."""
    reach = [1.0]
    for slot in range(1, tree.slots):
        rank = tree.rank[slot]
        reach.append(reach[tree.parents[slot]] * (rates[rank] if rank < len(rates) else 0.0))
    return sum(reach)
