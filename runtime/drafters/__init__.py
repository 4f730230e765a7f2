"""Drafters: each fills the slots of a draft from one source of tokens. One drafter a file."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ..draft import Accepted, Draft, Verified
from ..sequence import Sequence


class Drafter(ABC):
    """A source of drafts.

    A session makes each drafter once, from its engines and parameters by name, and uses it for all requests. No call
    announces a new request: `propose` sees the whole sequence, and must notice when that is another text.
    """

    @abstractmethod
    def propose(self, seq: Sequence) -> Draft:
        """Return a draft whose tree is rooted in `seq.pending`. Levels below `seq.room` earn nothing."""

    # B027 asks for @abstractmethod, but most drafters rely on this empty default.
    def observe(self, seq: Sequence, draft: Draft, verified: Verified, accepted: Accepted) -> None:  # noqa: B027
        """Learn from a step. By default a drafter learns nothing.

        Args:
            seq: the sequence, which already holds the accepted tokens.
            draft: the draft of the step.
            verified: the target's outputs. They are views, which the target's next run overwrites.
            accepted: the slots of the draft that were committed.
        """
