"""k-SEQ on several chains that were sampled independently (SpecTr, Sun et al. 2023, arXiv:2310.15141, algorithm 3).

V  vocabulary
"""

from __future__ import annotations

import numpy as np

from ..draft import Accepted, Draft, Verified
from ..rng import Use
from . import Keeps, rule
from .match import match

PRECISION = 1e-9  # of rho, which costs that much acceptance at most; the rule is exact for any larger rho


@rule(needs_draft_probs=True, needs_replacement=True, keeps=Keeps.DISTRIBUTION, matches_if_greedy=True)
def kseq(draft: Draft, verified: Verified) -> Accepted:
    """Walk down the tree, and accept at most one token of those that the paths still open suggest.

    A path is open while its tokens are those that were accepted. Of k suggestions, each token x is accepted in turn
    with probability min(1, p(x) / (rho q(x))), where p is the target's distribution and q the draft's. If all are
    rejected, the next token comes from what is left of p. The rule is exact if siblings were drawn from `draft.probs`
    independently, with replacement. With one chain it is `speculative`. At temperature 0 it is `match`.
    """
    if verified.sampling.greedy:
        return match(draft, verified)
    children, tokens = draft.tree.children, draft.tokens
    paths: list[tuple[int, ...]] = [(0,)]
    while True:
        slot = paths[0][-1]
        longer = [(*path, child) for path in paths for child in children[path[-1]]]
        if not longer:
            return Accepted(paths[0], verified.choose(slot))
        token, rest_V = _try_tokens([tokens[path[-1]] for path in longer], draft.probs[slot], verified, slot)
        if token is None:
            return Accepted(paths[0], verified.rng(slot, Use.TOKEN).pick(rest_V))
        paths = [path for path in longer if tokens[path[-1]] == token]


def _try_tokens(
    suggestions: list[int], q_V: np.ndarray, verified: Verified, slot: int
) -> tuple[int | None, np.ndarray]:
    """Try suggested tokens in turn, and accept at most one.

    Returns:
        The token, or None if all were rejected; and what is left of the target's distribution then, [V] float64.
    """
    p_V, rng = verified.probs(slot), verified.rng(slot, Use.ACCEPT)
    rho = find_rho(p_V, q_V, len(suggestions))
    for x in suggestions:
        if rng.bernoulli(min(1.0, p_V[x] / (rho * q_V[x]))):
            return x, p_V
    common_V = np.minimum(q_V, p_V / rho)
    share = float(common_V.sum())
    if share > 0:
        common_V *= (1 - (1 - share) ** len(suggestions)) / share
    return None, np.maximum(p_V - common_V, 0)


def find_rho(p_V: np.ndarray, q_V: np.ndarray, count: int) -> float:
    """Return the smallest number from which on the rule is exact: 1 - (1 - b)^k = rho b, with b = sum(min(q, p / rho)).

    It lies between 1 and k. Where the ratio p / q is outside this range, one of q and p / rho is always the smaller
    one, so those tokens are summed once. The result is a little too large rather than too small.

    Args:
        p_V: the target's distribution.
        q_V: the draft's.
        count: how many tokens are suggested, k.
    """
    always_q, always_p = p_V >= count * q_V, p_V <= q_V
    between = ~(always_q | always_p)
    mass_q, mass_p = float(q_V[always_q & ~always_p].sum()), float(p_V[always_p].sum())
    p, q = p_V[between], q_V[between]
    least, most = 1.0, float(count)
    while most - least > PRECISION:
        rho = (least + most) / 2
        share = mass_q + mass_p / rho + float(np.minimum(q, p / rho).sum())
        if 1 - (1 - share) ** count > rho * share:
            least = rho
        else:
            most = rho
    return most
