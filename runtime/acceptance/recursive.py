"""Recursive rejection sampling on a tree (Jeon et al. 2024, arXiv:2402.14160, algorithm 2)."""

from __future__ import annotations

import numpy as np

from ..draft import Accepted, Draft, Verified
from ..rng import Use
from . import Keeps, rule
from .match import match


@rule(needs_draft_probs=True, keeps=Keeps.DISTRIBUTION, matches_if_greedy=True)
def recursive(draft: Draft, verified: Verified) -> Accepted:
    """Walk down the tree, and accept at most one child of each slot by rejection sampling.

    The rule is exact if the siblings were drawn from `draft.probs` without replacement. At temperature 0 it is `match`.
    """
    if verified.sampling.greedy:
        return match(draft, verified)
    slots = [0]
    while True:
        child, target = _try_children(draft, verified, slots[-1])
        if child is None:
            return Accepted(tuple(slots), verified.rng(slots[-1], Use.TOKEN).pick(target))
        slots.append(child)


def _try_children(draft: Draft, verified: Verified, slot: int) -> tuple[int | None, np.ndarray]:
    """Try the children of `slot`, oldest first, and accept at most one.

    A child with token x is accepted with probability min(1, p(x) / q(x)), where p is the target's distribution and q
    the draft's. A rejection replaces p by its residual max(p - q, 0), and removes x from q.

    Returns:
        The child, or None if all were rejected; and p, [V] float64, what is left of the target's distribution. Its sum
        need not be 1.
    """
    p, rng = verified.probs(slot), verified.rng(slot, Use.ACCEPT)
    children = draft.tree.children[slot]
    if not children:
        return None, p
    q = draft.probs[slot].copy()
    step, mass, rest, last = np.empty_like(q), 1.0, 1.0, 1.0  # p and q are not divided by their sums, mass and rest.
    for child in children:
        x = draft.tokens[child]
        # The draft had fewer tokens to draw than the tree has slots: this slot and its younger siblings are padding.
        if not q[x] > 0:
            break
        if rng.bernoulli(min(1.0, p[x] * rest / (q[x] * mass))):
            return child, p
        np.multiply(q, mass / rest, out=step)
        p -= step
        np.maximum(p, 0.0, out=p)
        mass, rest, q[x] = float(p.sum()), rest - float(q[x]), 0
        if rest < last / 2:  # The difference of numbers of one size has few digits.
            rest = last = float(q.sum())
    return None, p
