"""Distance: keep what the target does not find too unlikely. Lossy (BiLD, Kim et al. 2023, arXiv:2302.07863)."""

from __future__ import annotations

import numpy as np

from ..draft import Accepted, Draft, Verified
from . import longest_path, rule


@rule(rollback_threshold=(0.0, 100.0))
def distance(draft: Draft, verified: Verified, *, rollback_threshold: float = 5.0) -> Accepted:
    """Accept the longest path whose tokens each have a cross-entropy of `rollback_threshold` at most.

    The cross-entropy of a token is minus the logarithm of the target's probability, by its logits at temperature 1. At
    the first token beyond it the text rolls back, and the target chooses a token in its place. Of paths of one length
    the first in the tree counts. Answers are not the target's own, but with a threshold of 0: then every token is the
    target's choice.

    Args:
        draft: the draft.
        verified: the target's outputs.
        rollback_threshold: the largest cross-entropy that a token may have, in nats. 2 to 5 in the paper.
    """

    def takes(slot: int, children: tuple[int, ...]) -> list[int]:
        logits_V = verified.logits(slot).astype(np.float64)
        total = logits_V.max() + np.log(np.exp(logits_V - logits_V.max()).sum())
        return [child for child in children if total - logits_V[draft.tokens[child]] <= rollback_threshold]

    path = longest_path(draft.tree, takes)
    return Accepted(path, verified.choose(path[-1]))
