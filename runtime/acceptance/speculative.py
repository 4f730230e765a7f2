"""Speculative sampling on a chain (Leviathan et al. 2023, arXiv:2211.17192, algorithm 1)."""

from __future__ import annotations

import numpy as np

from ..draft import Accepted, Draft, Verified
from ..errors import RecipeError
from ..rng import Use
from . import Keeps, rule
from .match import match


@rule(needs_draft_probs=True, needs_chain=True, keeps=Keeps.DISTRIBUTION, matches_if_greedy=True)
def speculative(draft: Draft, verified: Verified) -> Accepted:
    """Accept each drafted token x in turn with probability min(1, p(x) / q(x)).

    p is the target's distribution and q the draft's. After the first rejection the next token comes from the residual
    max(p - q, 0). The rule is exact if each token was sampled from `draft.probs`. At temperature 0 it is `match`.

    Raises:
        RecipeError: the draft is a tree. The rule is for chains.
    """
    if verified.sampling.greedy:
        return match(draft, verified)
    if not draft.tree.is_chain:
        raise RecipeError("acceptance 'speculative' is for chains, and this draft is a tree; use recursive")
    last = draft.tree.slots - 1
    for slot in range(last):
        x = draft.tokens[slot + 1]
        if not verified.accepts(slot, x, draft.probability(slot, x)):
            residual = np.maximum(verified.probs(slot) - draft.probs[slot], 0)
            token = verified.rng(slot, Use.TOKEN).pick(residual / residual.sum())
            return Accepted(tuple(range(slot + 1)), token)
    return Accepted(tuple(range(last + 1)), verified.choose(last))
