"""Typical acceptance: keep what the target finds likely enough. Lossy (Medusa, Cai et al. 2024, arXiv:2401.10774)."""

from __future__ import annotations

import numpy as np

from ..draft import Accepted, Draft, Verified
from . import longest_path, rule
from .match import match


@rule(matches_if_greedy=True, epsilon=(0.0, 1.0), delta=(0.0, 1.0))
def typical(draft: Draft, verified: Verified, *, epsilon: float = 0.09, delta: float = 0.3) -> Accepted:
    """Accept the longest path whose tokens each have a probability above min(epsilon, delta * exp(-H)).

    H is the entropy of the target's distribution at that place, so an uncertain target accepts less likely tokens. Of
    paths of one length the first in the tree counts. The token after the path is a sample of the target. Answers do not
    have the target's distribution. At temperature 0 the rule is `match`, and lossless.

    Args:
        draft: the draft.
        verified: the target's outputs.
        epsilon: a token of more than this probability is always accepted. 1 leaves the bound to `delta`.
        delta: the share of exp(-H) that is enough.
    """
    if verified.sampling.greedy:
        return match(draft, verified)

    def takes(slot: int, children: tuple[int, ...]) -> list[int]:
        probs_V = verified.probs(slot)
        bound = min(epsilon, delta * float(np.exp(-_entropy(probs_V))))
        return [child for child in children if probs_V[draft.tokens[child]] > bound]

    path = longest_path(draft.tree, takes)
    return Accepted(path, verified.choose(path[-1]))


def _entropy(probs_V: np.ndarray) -> float:
    """Return the entropy of a distribution, in nats."""
    positive = probs_V[probs_V > 0]
    return float(-(positive * np.log(positive)).sum())
