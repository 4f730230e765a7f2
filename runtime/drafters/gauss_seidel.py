"""Gauss-Seidel Jacobi decoding, alone or hybrid with plain decoding (Santilli et al. 2023, arXiv:2305.10427)."""

from __future__ import annotations

from ..draft import Accepted, Draft, Verified
from ..sequence import Sequence
from . import Drafter, Drafting, check_counts

MOST_PARALLEL = 1 << 20  # tokens of an answer


class GaussSeidel(Drafter):
    """A drafter that runs Jacobi iteration on one block of tokens until it is fixed, and then on the next block.

    A pass runs only the tokens of the block that are not fixed yet. Each pass fixes one of them at least, so a block
    of b tokens takes b passes at most. The hybrid variant goes on by plain decoding after a number of tokens.

    It departs from the paper in three points. A new block begins with copies of the pending token, since not every
    model has a padding token. A pass drops all tokens that it proved right, where the paper drops one. And a block ends
    with the pass that proves its last token, without a further pass in which nothing changes.
    """

    def __init__(self, block_size: int = 6, parallel_tokens: int | None = None) -> None:
        """Keep the parameters.

        Args:
            block_size: tokens of a block, b in the paper.
            parallel_tokens: new tokens after which plain decoding goes on, h in the paper; None never does.
        """
        check_counts(block_size=block_size)
        if parallel_tokens is not None:
            check_counts(most=MOST_PARALLEL, parallel_tokens=parallel_tokens)
        self.block_size, self.parallel_tokens = block_size, parallel_tokens

    def open(self, seq: Sequence) -> GaussSeidelDrafting:
        return GaussSeidelDrafting(self, seq)


class GaussSeidelDrafting(Drafting[GaussSeidel]):
    """The block of one request.

    Attributes:
        guess: the answers of the last pass for the tokens of the block that are not fixed.
        left: how many tokens of the block are not fixed.
    """

    guess: tuple[int, ...] = ()
    left: int = 0

    def __init__(self, drafter: GaussSeidel, seq: Sequence) -> None:
        super().__init__(drafter, seq)
        self.prompt = len(seq.tokens)

    def draft(self, room: int) -> Draft:
        drafter, pending = self.drafter, self.seq.pending
        if self.left == 0:
            self.guess, self.left = (), drafter.block_size
            most = drafter.parallel_tokens
            if most is not None:
                self.left = max(1, min(self.left, most - (len(self.seq.tokens) - self.prompt)))
        # The token after the last slot is the block's last one. So a block of `left` tokens takes `left` slots.
        guesses = [*self.guess, *[pending] * (self.left - 1 - len(self.guess))]
        return Draft.chain([pending, *guesses[:room]])

    def observe(self, draft: Draft, verified: Verified, accepted: Accepted) -> None:
        self.left = max(0, self.left - len(accepted.slots))
        answers = verified.outputs.ids_N[len(accepted.slots) : draft.tree.slots]
        self.guess = tuple(answers[: max(0, self.left - 1)])
