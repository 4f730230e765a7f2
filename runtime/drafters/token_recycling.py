"""Token Recycling (Luo et al. 2024, arXiv:2408.08696)."""

from __future__ import annotations

from collections.abc import Sequence as Tokens

from ..draft import Accepted, Draft, Verified
from ..sequence import Sequence
from ..tree import Tree
from . import MOST_VOCABULARY, Drafter, Drafting, check_counts


class TokenRecycling(Drafter):
    """A drafter with a table of the likeliest successors of each token, as the target last gave them.

    The table fills a static tree: a child of rank r gets the r-th successor of its parent's token. Each slot that the
    target runs, accepted or not, replaces its token's row of the table.
    """

    def __init__(self, tree: Tokens[int], vocab_size: int, successors: int = 8) -> None:
        """Make an empty table.

        Args:
            tree: the parent vector that is baked into the verify engine, which must return `top_k`.
            vocab_size: rows of the table.
            successors: tokens of a row until the target has replaced it.
        """
        check_counts(successors=successors)
        check_counts(most=MOST_VOCABULARY, vocab_size=vocab_size)
        self.tree = Tree(tuple(tree))
        self.table = [[0] * successors] * vocab_size

    def open(self, seq: Sequence) -> TokenRecyclingDrafting:
        return TokenRecyclingDrafting(self, seq)


class TokenRecyclingDrafting(Drafting[TokenRecycling]):
    """The use of the table by one request."""

    def draft(self, room: int) -> Draft:
        tokens, tree, table = [self.seq.pending], self.drafter.tree, self.drafter.table
        for parent, rank in zip(tree.parents[1:], tree.rank[1:], strict=True):
            tokens.append(table[tokens[parent]][rank])
        return Draft(tuple(tokens), tree)

    def observe(self, draft: Draft, verified: Verified, accepted: Accepted) -> None:
        top, table = verified.outputs.top_ids_NK, self.drafter.table
        if top is None:
            return  # A grammar left one slot of the draft, and the guard's narrow engine ran it.
        for token, likeliest in zip(draft.tokens, top.tolist(), strict=False):
            table[token] = likeliest
