"""Top-beta: keep drafted tokens that the target ranks high. Lossy (SpecDec, Xia et al. 2023, arXiv:2203.16487)."""

from __future__ import annotations

import numpy as np

from ..draft import Accepted, Draft, Verified
from . import longest_path, rule
from .match import match


@rule(beta=(1.0, 1024.0), gap=(0.0, 100.0))
def top_beta(draft: Draft, verified: Verified, *, beta: float = 5, gap: float = 3.0) -> Accepted:
    """Accept the longest path whose tokens the target ranks high, and finds not much less likely than the first.

    Of paths of one length the first in the tree counts. The token after the path is the target's choice. Answers have
    neither the target's tokens nor its distribution. With `beta` 1 the rule is `match`, and lossless. The rule of
    Blockwise Parallel Decoding that accepts the first k tokens is this one with a gap of 100.

    Args:
        draft: the draft.
        verified: the target's outputs.
        beta: the number of likeliest tokens among which a token must be.
        gap: how much smaller its log-probability may be than that of the likeliest token, in nats.
    """
    if beta <= 1:
        return match(draft, verified)

    def takes(slot: int, children: tuple[int, ...]) -> list[int]:
        logits_V = verified.logits(slot)
        least = logits_V.max() - gap
        near = [child for child in children if logits_V[draft.tokens[child]] >= least]
        return [child for child in near if np.count_nonzero(logits_V > logits_V[draft.tokens[child]]) < beta]

    path = longest_path(draft.tree, takes)
    return Accepted(path, verified.choose(path[-1]))
