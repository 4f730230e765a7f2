"""Plain decoding: the drafter that proposes nothing."""

from __future__ import annotations

from ..draft import Accepted, Draft, Verified
from ..sequence import Sequence


class Plain:
    def propose(self, seq: Sequence) -> Draft:
        return Draft.chain([seq.pending])

    def observe(self, seq: Sequence, draft: Draft, verified: Verified, accepted: Accepted) -> None:
        pass
