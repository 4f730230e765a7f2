"""TR-Jacobi: a tree of the target's own guesses with one retrieved branch (Wang et al. 2024, arXiv:2406.17404)."""

from __future__ import annotations

from collections.abc import Sequence as Tokens
from random import Random

from ..draft import Accepted, Draft, Verified
from ..errors import RecipeError
from ..sequence import Sequence
from ..tree import Tree
from . import Drafter, Drafting, check_counts
from .prompt_lookup import NgramIndex


class TrJacobi(Drafter):
    """A drafter whose tree has the target's likeliest answers of the last step, and a chain copied from the text.

    The slots that were rejected below the accepted path hold the target's answers for the next places. A child of rank
    r at depth d gets the r-th likeliest of them. Places without an answer get tokens of the prompt at random. The last
    child of the pending token begins the copied chain.

    The paper trains the model with noise, so that it answers well below wrong tokens. Other models work, too.
    """

    def __init__(self, template: Tokens[int], retrieved_tokens: int = 5, max_matching_ngram_size: int = 3) -> None:
        """Keep the parameters.

        Args:
            template: the parent vector that is baked into the verify engine, which must return `top_k`. Its last
                `retrieved_tokens` slots are a chain below the pending token.
            retrieved_tokens: tokens of the copied chain.
            max_matching_ngram_size: tokens of the longest n-gram that is looked up.
        """
        check_counts(retrieved_tokens=retrieved_tokens, max_matching_ngram_size=max_matching_ngram_size)
        self.tree, self.copied, self.longest = Tree(tuple(template)), retrieved_tokens, max_matching_ngram_size
        self.guessed = self.tree.slots - retrieved_tokens  # The slots before the copied chain.
        if self.guessed < 1 or self.tree.parents != with_chain(self.tree.parents[: self.guessed], retrieved_tokens):
            raise RecipeError(
                f"template does not end with a chain of {retrieved_tokens} slots; compile the bundle again"
            )

    def open(self, seq: Sequence) -> TrJacobiDrafting:
        return TrJacobiDrafting(self, seq)


def with_chain(parents: Tokens[int], slots: int) -> tuple[int, ...]:
    """Return a parent vector with a chain below slot 0 behind it."""
    return (*parents, 0, *range(len(parents), len(parents) + slots - 1))


class TrJacobiDrafting(Drafting[TrJacobi]):
    """The target's answers for the next places of one request, and the index of its text."""

    def __init__(self, drafter: TrJacobi, seq: Sequence) -> None:
        super().__init__(drafter, seq)
        self.index = NgramIndex(seq.tokens, drafter.longest)
        self.answers: list[list[int]] = []  # By depth, the likeliest tokens.
        self.prompt, self.rng = list(seq.tokens), Random(0)

    def draft(self, room: int) -> Draft:
        drafter, tree = self.drafter, self.drafter.tree
        tokens = [self.seq.pending]
        for slot in range(1, drafter.guessed):
            place, rank = int(tree.depth[slot]) - 1, tree.rank[slot]
            if place < len(self.answers) and rank < len(self.answers[place]):
                tokens.append(self.answers[place][rank])
            else:
                tokens.append(self.rng.choice(self.prompt))
        copy = self.index.after(drafter.copied, shortest=min(2, drafter.longest), whole=True)
        tokens += [*copy, *[self.seq.pending] * (drafter.copied - len(copy))]
        return Draft(tuple(tokens), tree)

    def observe(self, draft: Draft, verified: Verified, accepted: Accepted) -> None:
        top, children = verified.outputs.top_ids_NK, draft.tree.children
        self.answers, slot = [], accepted.slots[-1]
        if top is None:
            return  # A grammar left one slot of the draft, and the guard's narrow engine ran it.
        while children[slot]:
            slot = children[slot][0]
            self.answers.append(top[slot].tolist())
