"""Sample from the target and follow the tree while a child equals the sample.

Exact for every drafter at every temperature, since the tokens are the target's own; at temperature 0 it is greedy
verification (Stern et al. 2018, arXiv:1811.03115). Siblings may hold one token: all of them are followed.
"""

from __future__ import annotations

from ..draft import Accepted, Draft, Verified


def match(draft: Draft, verified: Verified) -> Accepted:
    children, tokens = draft.tree.children, draft.tokens
    paths: list[tuple[int, ...]] = [(0,)]
    while True:
        token = verified.choose(paths[0][-1])
        longer = [(*path, child) for path in paths for child in children[path[-1]] if tokens[child] == token]
        if not longer:
            return Accepted(paths[0], token)
        paths = longer
