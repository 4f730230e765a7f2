"""Recursive rejection sampling on a tree whose siblings were drawn without replacement.

Each sibling in turn is accepted by the rule of speculative sampling; a rejection leaves the residual of the target
and takes the sibling out of the draft's probabilities (Jeon et al. 2024, arXiv:2402.14160, algorithm 2).
"""

from __future__ import annotations

import numpy as np

from ..draft import Accepted, Draft, Verified
from . import needs_draft_probs
from .match import match


@needs_draft_probs
def recursive(draft: Draft, verified: Verified) -> Accepted:
    if verified.sampling.greedy:
        return match(draft, verified)
    slots = [0]
    while True:
        child, target = _try_children(draft, verified, slots[-1])
        if child is None:
            return Accepted(tuple(slots), verified.sampling.rng.pick(target))
        slots.append(child)


def _try_children(draft: Draft, verified: Verified, slot: int) -> tuple[int | None, np.ndarray]:
    """The child accepted below `slot`, or None and the distribution left to sample from."""
    p, rng = verified.probs(slot), verified.sampling.rng
    children = draft.tree.children[slot]
    q = draft.probs[slot].copy() if children else p
    for child in children:
        x = draft.tokens[child]
        if not q[x] > 0:  # the draft ran out of tokens: this slot is padding
            break
        if rng.bernoulli(min(1.0, p[x] / q[x])):
            return child, p
        p = np.maximum(p - q, 0)
        p /= p.sum()
        q[x] = 0
        if q.sum() > 0:
            q /= q.sum()
    return None, p
