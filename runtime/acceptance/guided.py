"""FS-GEN's contrastive choice: the small model's tokens stay, and the next one is chosen by both models. Lossy.

Zhang et al. 2024, arXiv:2406.12295.
"""

from __future__ import annotations

import numpy as np

from ..draft import Accepted, Draft, Verified
from ..errors import RecipeError
from . import rule


@rule(
    needs_draft_probs=True,
    needs_draft_logits=True,
    needs_all_logits=True,
    needs_chain=True,
    obeys_processors=False,
    alpha=(0.0, 1.0),
    beta=(0.0, 10.0),
)
def guided(draft: Draft, verified: Verified, *, alpha: float = 0.1, beta: float = 1.0) -> Accepted:
    """Accept every drafted token, and choose the token after them by the logits of both models.

    The logits are `small + beta * (large - small)`. A token needs at least `alpha` times the large model's largest
    probability. With `alpha` 0 and `beta` 1 the large model chooses alone: the paper's oracle.

    Args:
        draft: a chain of the small model, with its logits after the last slot.
        verified: the large model's outputs.
        alpha: the share of the largest probability below which a token is never chosen.
        beta: the weight of the large model; more than 1 moves away from the small one.

    Raises:
        RecipeError: the draft is a tree, or lacks logits.
    """
    last = draft.tree.slots - 1
    if not draft.tree.is_chain or last not in draft.logits:
        raise RecipeError(
            "acceptance 'guided' needs a chain with the draft's logits after its last slot; use a recipe with a draft "
            "model"
        )
    chooser = verified.by(lambda slot: combined(draft.logits[slot], verified.logits(slot), alpha, beta))
    return Accepted(tuple(range(last + 1)), chooser.choose(last))


def combined(small_V: np.ndarray, large_V: np.ndarray, alpha: float, beta: float) -> np.ndarray:
    """Return the contrastive logits of two models, [V]: minus infinity where the large one's share is below `alpha`."""
    logits_V: np.ndarray = small_V + beta * (large_V - small_V)
    with np.errstate(divide="ignore"):
        logits_V[large_V < large_V.max() + np.log(alpha)] = -np.inf
    return logits_V
