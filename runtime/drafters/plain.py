"""Plain decoding: the drafter that proposes nothing."""

from __future__ import annotations

from ..draft import ONE_SLOT, Draft
from ..sequence import Sequence
from . import Drafter, Drafting


class Plain(Drafter):
    """A drafter whose drafts hold the pending token alone, so that each step gives one token."""

    def open(self, seq: Sequence) -> PlainDrafting:
        return PlainDrafting(self, seq)


class PlainDrafting(Drafting[Plain]):
    """Nothing but the pending token of one request."""

    def draft(self, room: int) -> Draft:
        return Draft((self.seq.pending,), ONE_SLOT)
