"""Speculative contrastive decoding: the draft model says what not to choose (Yuan et al. 2024, arXiv:2311.08981)."""

from __future__ import annotations

import numpy as np

from ..draft import Accepted, Draft, Verified
from ..errors import RecipeError
from . import rule
from .speculative import speculative


@rule(
    needs_draft_probs=True,
    needs_draft_logits=True,
    needs_all_logits=True,
    needs_chain=True,
    alpha=(0.0, 1.0),
    beta=(0.0, 10.0),
)
def contrastive(draft: Draft, verified: Verified, *, alpha: float = 0.1, beta: float = 0.5) -> Accepted:
    """Decode from a contrastive target: the target's logits, less those of the draft model.

    A token needs at least `alpha` times the probability of the target's likeliest one. Its score is
    `(1 + beta) * target - beta * draft`, in logits. The request's sampling then chooses by the scores. Drafted tokens
    are accepted by the rule of speculative sampling against that distribution. So answers have the tokens, or the
    distribution, of contrastive decoding without speculation, and not those of the target.

    Args:
        draft: a chain, with the draft model's logits after each slot.
        verified: the target's outputs.
        alpha: the share of the largest probability below which a token is never chosen.
        beta: the weight of the draft model.

    Raises:
        RecipeError: the draft is a tree, or lacks logits.
    """
    if not draft.tree.is_chain:
        raise RecipeError("acceptance 'contrastive' is for chains, and this draft is a tree; use another rule")
    if len(draft.logits) < draft.tree.slots:
        raise RecipeError(
            "acceptance 'contrastive' needs the logits of a draft model after every slot, and this draft has none; "
            "use a recipe that drafts chains by an engine"
        )
    return speculative(draft, verified.by(lambda slot: _scores(draft, verified, slot, alpha, beta)))


def _scores(draft: Draft, verified: Verified, slot: int, alpha: float, beta: float) -> np.ndarray:
    """Return the contrastive logits of the token after a slot, [V] float32: minus infinity where `alpha` forbids it."""
    target_V, draft_V = verified.logits(slot), draft.logits[slot]
    if not alpha:
        scores_V: np.ndarray = (1 + beta) * target_V - beta * draft_V
        return scores_V
    tokens = np.flatnonzero(target_V >= target_V.max() + np.log(alpha))  # few of the vocabulary
    scores_V = np.full(len(target_V), -np.inf, target_V.dtype)
    scores_V[tokens] = (1 + beta) * target_V[tokens] - beta * draft_V[tokens]
    return scores_V
