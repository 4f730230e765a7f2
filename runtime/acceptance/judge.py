"""Judge: keep what a trained head finds good. Lossy (Judge Decoding, Bachmann et al. 2025, arXiv:2501.19309)."""

from __future__ import annotations

from math import inf, log

import numpy as np

from ..draft import Accepted, Draft, Verified
from ..errors import RecipeError
from . import longest_path, rule
from .match import match

HEAD = "judge"  # The head whose state of a token says whether the token is good.


@rule(needs_head=HEAD, threshold=(0.0, 1.0))
def judge(draft: Draft, verified: Verified, *, threshold: float = 0.5) -> Accepted:
    """Accept the longest path whose tokens the target would choose, or the head finds good.

    The head reads the target's state after each drafted token. The token after the path is the target's choice. Answers
    have neither the target's tokens nor its distribution. With `threshold` 1 the rule is `match`, and lossless. It
    departs from the paper where requests sample: the target's rule is then `match`, and the paper's is speculative
    sampling.

    Args:
        draft: the draft.
        verified: the target's outputs, with the states of the head.
        threshold: a token is good if the head's probability for it is larger.

    Raises:
        RecipeError: the bundle has no such head.
    """
    if threshold >= 1:
        return match(draft, verified)
    scores = verified.outputs.states.get(HEAD)
    if scores is None:
        raise RecipeError(
            "the bundle has no head that judges tokens; compile it with --recipe judge-decoding and --head"
        )
    least = log(threshold / (1 - threshold)) if threshold > 0 else -inf

    def takes(slot: int, children: tuple[int, ...]) -> list[int]:
        choice = verified.choose(slot)
        return [
            child
            for child in children
            if draft.tokens[child] == choice or (scores[child, 0] > least and _is_allowed(verified, slot, draft, child))
        ]

    path = longest_path(draft.tree, takes)
    return Accepted(path, verified.choose(path[-1]))


def _is_allowed(verified: Verified, slot: int, draft: Draft, child: int) -> bool:
    """Tell whether no processor forbids a child of a slot."""
    return verified.processed is None or bool(np.isfinite(verified.logits(slot)[draft.tokens[child]]))
