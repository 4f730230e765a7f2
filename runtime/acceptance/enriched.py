"""RAPID's rule: the target moves towards the draft, which reads retrieved text alone. Lossy (arXiv:2502.20330).

V  vocabulary
"""

from __future__ import annotations

from math import inf, log

import numpy as np

from ..draft import Accepted, Draft, Verified
from ..draws import POOL
from ..errors import RecipeError
from ..rng import Use
from . import rule
from .match import match


@rule(
    needs_draft_probs=True,
    needs_draft_logits=True,
    needs_all_logits=True,
    needs_chain=True,
    eta=(0.0, 100.0),
    alpha=(0.0, 1.0),
)
def enriched(draft: Draft, verified: Verified, *, eta: float = 10.0, alpha: float = 0.1) -> Accepted:
    """Accept drafted tokens by a target whose logits moved towards the draft's probabilities.

    p is the target's distribution and q the draft's. The logits of tokens that have at least `alpha` times the draft's
    largest probability get `eta * (q - p)` more, and s is the distribution by these logits. A drafted token x is
    accepted with probability min(1, s(x) / q(x)). After the first rejection the next token comes from the positive part
    of max(p - q, p - s). So answers have neither the target's distribution nor that of s. With `eta` 0 they have the
    target's, and at temperature 0 its tokens.

    Args:
        draft: a chain, with the draft's logits after each slot.
        verified: the target's outputs.
        eta: how far the logits move.
        alpha: the share of the draft's largest probability below which a logit stays.

    Raises:
        RecipeError: the draft is a tree, or lacks logits.
    """
    if not draft.tree.is_chain or len(draft.logits) < draft.tree.slots:
        raise RecipeError(
            "acceptance 'enriched' needs a chain with the draft's logits after every slot; use a recipe that drafts "
            "chains by an engine"
        )
    moved = verified.by(lambda slot: _moved(draft, verified, slot, eta, alpha))
    if verified.sampling.greedy:
        return match(draft, moved)
    last = draft.tree.slots - 1
    for slot in range(last):
        x = draft.tokens[slot + 1]
        if not moved.accepts(slot, x, draft.probability(slot, x)):
            p, q, s = verified.probs(slot), draft.probs[slot], moved.probs(slot)
            residual = np.maximum(np.maximum(p - q, p - s), 0)
            rest = residual if residual.sum() > 0 else p
            return Accepted(tuple(range(slot + 1)), verified.rng(slot, Use.TOKEN).pick(rest / rest.sum()))
    return Accepted(tuple(range(last + 1)), moved.choose(last))


def _moved(draft: Draft, verified: Verified, slot: int, eta: float, alpha: float) -> np.ndarray:
    """Return the logits of the token after a slot, moved towards the draft: [V] float32."""
    target_V, draft_V = verified.logits(slot), draft.logits[slot]
    moved_V = target_V.astype(np.float32)  # A copy.
    tokens = np.flatnonzero(draft_V >= draft_V.max() + (log(alpha) if alpha else -inf))
    q, p = (_shares(logits_V, tokens) for logits_V in (draft_V, target_V))
    moved_V[tokens] = target_V[tokens] + eta * (q - p)
    return moved_V


def _shares(logits_V: np.ndarray, tokens: np.ndarray) -> np.ndarray:
    """Return the probabilities of some tokens by logits at temperature 1, float64."""
    weights_V, largest = POOL.take(len(logits_V)), logits_V.max()
    np.subtract(logits_V, largest, out=weights_V)
    total = float(np.exp(weights_V, out=weights_V).sum())  # numpy adds pairwise, so float32 loses little.
    POOL.give(weights_V)
    shares: np.ndarray = np.exp(logits_V[tokens].astype(np.float64) - largest) / total
    return shares
