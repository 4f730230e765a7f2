"""Choose the static tree that pays: the best tree of each size, and the size that gives most tokens a second."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from specc.runtime.tree import Tree


@dataclass(frozen=True)
class Costs:
    """The measured costs of drafting and verifying a tree, in milliseconds.

    Attributes:
        widths: the cost of one verification, by how many slots it has.
        call: the cost of one call of the drafter's engine; 0 if the drafter has no engine.
        slots: how many tokens of one level a call of the drafter's engine takes; 0 if one call drafts the whole tree.
    """

    widths: Mapping[int, float]
    call: float = 0.0
    slots: int = 1

    def verify(self, slots: int) -> float:
        """Return the cost of the narrowest measured width that holds the slots.

        Matrix kernels work in tiles. So between two measured widths a step costs as much as the wider one does.
        """
        return self.widths[min(width for width in self.widths if width >= slots)]

    def draft(self, tree: Tree) -> float:
        """Return the cost of drafting a tree: each level's tokens that have children run together, or all at once."""
        if not self.slots:
            return self.call
        parents = Counter(int(tree.depth[slot]) for slot in range(tree.slots) if tree.children[slot])
        return self.call * sum(ceil(count / self.slots) for count in parents.values())


def best_tree(rates: Sequence[float], costs: Costs, depth: int) -> Tree:
    """Find the tree that gives most tokens a millisecond.

    Args:
        rates: how often the child of rank 0, 1, … is the target's token.
        costs: the measured costs. The widest width bounds the slots of the tree.
        depth: the greatest number of levels below the root.
    """
    most = max(costs.widths)
    trees = {Tree.best(rates, slots, levels) for slots in range(2, most + 1) for levels in range(1, depth + 1)}
    return max(trees, key=lambda tree: speed(tree, rates, costs))


def speed(tree: Tree, rates: Sequence[float], costs: Costs) -> float:
    """Compute the tokens a millisecond that a tree gives."""
    return expected(tree, rates) / (costs.verify(tree.slots) + costs.draft(tree))


def expected(tree: Tree, rates: Sequence[float]) -> float:
    """Compute the expected tokens of a step.

    The target's own token counts 1. Each slot below the root counts the probability that its path is right, which is
    the product of the rates of the ranks on the path.
    """
    reach = [1.0]
    for slot in range(1, tree.slots):
        rank = tree.rank[slot]
        reach.append(reach[tree.parents[slot]] * (rates[rank] if rank < len(rates) else 0.0))
    return sum(reach)
