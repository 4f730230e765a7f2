"""Plain decoding: the drafter that proposes nothing."""

from __future__ import annotations

from ..draft import Draft
from ..sequence import Sequence
from . import Drafter


class Plain(Drafter):
    """A drafter whose drafts hold the pending token alone, so that each step gives one token."""

    def propose(self, seq: Sequence) -> Draft:
        return Draft.chain([seq.pending])
