"""Own confidence: keep guesses that the pass which made them was sure of. Lossy (FastCoT, arXiv:2311.08263)."""

from __future__ import annotations

import numpy as np

from ..draft import Accepted, Draft, Verified
from ..errors import RecipeError
from . import rule


@rule(needs_draft_logits=True, needs_chain=True, obeys_processors=False, threshold=(0.0, 1.0))
def confidence(draft: Draft, verified: Verified, *, threshold: float = 1.0) -> Accepted:
    """Accept the drafted tokens that were guessed with a probability above `threshold`, whatever the target says now.

    A token with less is accepted if it is the one that the target chooses. The first other token ends the path, and
    the target's choice follows it. So answers do not have the tokens or the distribution of the target. No probability
    is above 1, so with 1 the rule is `match`, and lossless.

    specc follows the abstract of the paper alone. The paper reads unconverged tokens where the reasoning ends, and then
    asks for the answer. The abstract gives neither the schedule of its window nor the test that ends the reasoning.
    Here unconverged tokens that are confident stay in the text, wherever they are.

    Args:
        draft: a chain, with the logits that each guess comes from. A token without logits has no confidence.
        verified: the target's outputs.
        threshold: the probability that a guess must exceed.

    Raises:
        RecipeError: the draft is a tree. The rule is for chains.
    """
    if not draft.tree.is_chain:
        raise RecipeError("acceptance 'confidence' is for chains, and this draft is a tree; use match")
    last = draft.tree.slots - 1
    for slot in range(last):
        x = draft.tokens[slot + 1]
        if threshold < 1 and slot in draft.logits and _probability(draft.logits[slot], x) > threshold:
            continue
        token = verified.choose(slot)
        if token != x:
            return Accepted(tuple(range(slot + 1)), token)
    return Accepted(tuple(range(last + 1)), verified.choose(last))


def _probability(logits_V: np.ndarray, token: int) -> float:
    """Return the probability of a token by logits, at temperature 1."""
    return 1 / float(np.exp(logits_V - logits_V[token]).sum(dtype=np.float64))
