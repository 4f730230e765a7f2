"""FS-GEN's proxy tuning: what tuning changed in a small model is added to the logits of a large one. Lossy.

Zhang et al. 2024, arXiv:2406.12295; Liu et al. 2024, arXiv:2401.08565.
"""

from __future__ import annotations

import numpy as np

from ..draft import Accepted, Draft, Verified
from ..errors import RecipeError
from . import rule


@rule(
    needs_draft_probs=True,
    needs_draft_difference=True,
    needs_chain=True,
    obeys_processors=False,
    alpha=(0.0, 10.0),
)
def proxy(draft: Draft, verified: Verified, *, alpha: float = 1.0) -> Accepted:
    """Accept every drafted token, and choose the token after them by the sum of two logits.

    The logits are `target + alpha * draft`. The drafter `proxy-tuning` keeps the logits of a tuned small model less
    those of an untuned one. With `alpha` 0 the target chooses alone: the paper's oracle.

    Args:
        draft: a chain, with the drafter's logits after the last slot.
        verified: the target's outputs.
        alpha: the weight of the drafter's logits.

    Raises:
        RecipeError: the draft is a tree, or lacks logits.
    """
    last = draft.tree.slots - 1
    if not draft.tree.is_chain or last not in draft.logits:
        raise RecipeError(
            "acceptance 'proxy' needs a chain with the draft's logits after its last slot; use the recipe fs-gen-proxy"
        )
    chooser = verified.by(lambda slot: added(verified.logits(slot), draft.logits[slot], alpha))
    return Accepted(tuple(range(last + 1)), chooser.choose(last))


def added(target_V: np.ndarray, difference_V: np.ndarray, alpha: float) -> np.ndarray:
    """Return the logits of the target, moved by `alpha` times the difference of two small models, [V] float32."""
    logits_V: np.ndarray = target_V + alpha * difference_V
    return logits_V
