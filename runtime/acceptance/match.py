"""Match: sample from the target, and follow the tree while a child equals the sample."""

from __future__ import annotations

from ..draft import Accepted, Draft, Verified
from . import Keeps, rule


@rule(needs_draft_probs=False, keeps=Keeps.TOKENS)
def match(draft: Draft, verified: Verified) -> Accepted:
    """Accept the longest path whose tokens are those that the target samples.

    The tokens are the target's own. So the rule is exact for every drafter at every temperature. At temperature 0 it
    is greedy verification (Stern et al. 2018, arXiv:1811.03115). If several siblings hold the sampled token, all of
    them are followed.
    """
    children, tokens = draft.tree.children, draft.tokens
    paths: list[tuple[int, ...]] = [(0,)]
    while True:
        token = verified.choose(paths[0][-1])
        longer = [(*path, child) for path in paths for child in children[path[-1]] if tokens[child] == token]
        if not longer:
            return Accepted(paths[0], token)
        paths = longer
