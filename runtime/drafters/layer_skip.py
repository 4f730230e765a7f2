"""Layer-skip self-speculation: the target itself, with layers left out, drafts a chain.

Draft & Verify (Zhang et al. 2024, arXiv:2309.08168); LayerSkip (Elhoushi et al. 2024, arXiv:2404.16710).
"""

from __future__ import annotations

from typing import Any

from ..draft import Accepted, Draft, Verified
from ..draft_chain import draft_chain
from ..engine import Engine
from ..lengths import LengthPolicy
from ..sequence import Sequence
from . import Drafter, Drafting, Proposal


class LayerSkip(Drafter):
    """A drafter of chains by an engine over the target's cache, such as the target with fewer layers or fewer bits.

    The engine reads the target's committed rows. It writes scratch rows past their end, which verify overwrites.
    """

    takes_length = True

    def __init__(self, draft: Engine, sample: bool = False, keep_logits: bool = False, **length: Any) -> None:
        """Keep the engine and the parameters.

        Args:
            draft: an engine of one slot over the target's cache.
            sample: sample the drafted tokens if the request samples.
            keep_logits: keep the logits of each slot in the draft, for a rule that asks for them.
            **length: the parameters of `LengthPolicy`.
        """
        self.engine, self.sample, self.keep_logits = draft, sample, keep_logits
        self.length = LengthPolicy(**length)

    def open(self, seq: Sequence) -> LayerSkipDrafting:
        return LayerSkipDrafting(self, seq)


class LayerSkipDrafting(Drafting[LayerSkip]):
    """Calls over the target's cache of one request, and how long its drafts are."""

    def __init__(self, drafter: LayerSkip, seq: Sequence) -> None:
        super().__init__(drafter, seq)
        self.length = drafter.length.open()

    def propose(self, room: int) -> Proposal:
        drafter = self.drafter
        return draft_chain(
            drafter.engine,
            self.seq,
            self.seq.cache,
            room=room,
            length=self.length,
            sample=drafter.sample,
            keep_logits=drafter.keep_logits,
        )

    def observe(self, draft: Draft, verified: Verified, accepted: Accepted) -> None:
        self.length.observe(len(draft.tokens) - 1, len(accepted.slots) - 1)
