"""Jacobi decoding (Santilli et al. 2023, arXiv:2305.10427)."""

from __future__ import annotations

from ..draft import Accepted, Draft, Verified
from ..sequence import Sequence
from . import Drafter, Drafting, check_counts


class Jacobi(Drafter):
    """A drafter whose guesses are the target's answers of the last step, below the last accepted slot.

    Slots without an answer repeat the pending token.
    """

    def __init__(self, num_speculative_tokens: int = 5) -> None:
        check_counts(num_speculative_tokens=num_speculative_tokens)
        self.count = num_speculative_tokens

    def open(self, seq: Sequence) -> JacobiDrafting:
        return JacobiDrafting(self, seq)


class JacobiDrafting(Drafting[Jacobi]):
    """The guesses of one request."""

    guess: tuple[int, ...] = ()

    def draft(self, room: int) -> Draft:
        missing = self.drafter.count - len(self.guess)
        return Draft.chain([self.seq.pending, *self.guess, *[self.seq.pending] * missing])

    def observe(self, draft: Draft, verified: Verified, accepted: Accepted) -> None:
        self.guess = tuple(verified.outputs.ids_N[len(accepted.slots) : draft.tree.slots])
