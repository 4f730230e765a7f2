"""Token Recycling (Luo et al. 2024, arXiv:2408.08696): the likeliest successors of each token, as last seen.

Every slot that verify runs, accepted or not, refreshes its token's row of the table; the table fills a static tree.
"""

from __future__ import annotations

from collections.abc import Sequence as Tokens

from ..draft import Accepted, Draft, Verified
from ..sequence import Sequence
from ..tree import Tree
from .plain import Plain


class TokenRecycling(Plain):
    """The verify engine returns `top_k`; `tree` is the parent vector baked into it."""

    def __init__(self, tree: Tokens[int], vocab_size: int, successors: int = 8) -> None:
        self.tree = Tree(tuple(tree))
        self.table = [[0] * successors] * vocab_size

    def propose(self, seq: Sequence) -> Draft:
        tokens = [seq.pending]
        for parent, rank in zip(self.tree.parents[1:], self.tree.rank[1:], strict=True):
            tokens.append(self.table[tokens[parent]][rank])
        return Draft(tuple(tokens), self.tree)

    def observe(self, seq: Sequence, draft: Draft, verified: Verified, accepted: Accepted) -> None:
        top = verified.outputs.top_ids_NK
        assert top is not None
        for token, likeliest in zip(draft.tokens, top.tolist(), strict=False):
            self.table[token] = likeliest
