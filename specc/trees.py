"""Which static tree pays, by measured costs: the tree of every width, and the width that gives most tokens a second."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from specc.runtime.tree import Tree


def best_tree(rates: Sequence[float], widths: Mapping[int, float], level: float, most: int, depth: int) -> Tree:
    """The tree of at most `most` slots that gives most tokens a millisecond.

    rates: how often the child of rank 0, 1, … is right. widths: milliseconds of verify by its slots, measured;
    between them it is interpolated. level: milliseconds that drafting one more level takes.
    """
    trees = {Tree.best(rates, n, d) for n in range(2, most + 1) for d in range(1, depth + 1)}
    return max(trees, key=lambda tree: speed(tree, rates, widths, level))


def speed(tree: Tree, rates: Sequence[float], widths: Mapping[int, float], level: float) -> float:
    """Tokens a millisecond."""
    slots = sorted(widths)
    verify = float(np.interp(tree.slots, slots, [widths[s] for s in slots]))
    return expected(tree, rates) / (verify + level * int(tree.depth.max()))


def expected(tree: Tree, rates: Sequence[float]) -> float:
    """Tokens a step: 1, and each slot with the probability that its path is right."""
    reach = [1.0]
    for slot in range(1, tree.slots):
        rank = tree.rank[slot]
        reach.append(reach[tree.parents[slot]] * (rates[rank] if rank < len(rates) else 0.0))
    return sum(reach)
