"""What fills the slots: one source of tokens a file.

A drafter is made once for a session, from its engines and parameters by name, and told of each new sequence by the
sequence itself: `propose` sees all tokens so far.
"""

from __future__ import annotations

from typing import Protocol

from ..draft import Accepted, Draft, Verified
from ..sequence import Sequence


class Drafter(Protocol):
    def propose(self, seq: Sequence) -> Draft:
        """A tree rooted in the pending token; more than `seq.room` tokens deep it earns nothing."""

    def observe(self, seq: Sequence, draft: Draft, verified: Verified, accepted: Accepted) -> None:
        """What became of it; `seq` holds the accepted tokens already. Engine outputs are valid until the next run."""
