"""Layer-skip self-speculation: the target itself, with layers left out, drafts a chain.

Draft & Verify (Zhang et al. 2024, arXiv:2309.08168); LayerSkip (Elhoushi et al. 2024, arXiv:2404.16710).
"""

from __future__ import annotations

from typing import Any

from ..block import MOST_GROUP
from ..draft import Accepted, Draft, Verified
from ..draft_chain import draft_chain
from ..engine import Engine
from ..lengths import LengthPolicy
from ..sequence import Sequence
from . import Drafter, Drafting, Proposal, check_counts


class LayerSkip(Drafter):
    """A drafter of chains by an engine over the target's cache, such as the target with fewer layers or fewer bits.

    The engine reads the target's committed rows. It writes scratch rows past their end, which verify overwrites.
    """

    takes_length = True

    def __init__(
        self, draft: Engine, sample: bool = False, keep_logits: bool = False, group_rows: int = 0, **length: Any
    ) -> None:
        """Keep the engine and the parameters.

        Args:
            draft: an engine of one slot over the target's cache.
            sample: sample the drafted tokens if the request samples.
            keep_logits: keep the logits of each slot in the draft, for a rule that asks for them.
            group_rows: rows that the target rounds together, 0 if it reads all rows as they are. No step goes beyond
                the row after which the target rounds further ones. So each slot sees the rows that it would see in a
                step of its own.
            **length: the parameters of `LengthPolicy`.

        Raises:
            RecipeError: a parameter is out of range.
        """
        check_counts(0, MOST_GROUP, group_rows=group_rows)
        self.engine, self.sample, self.keep_logits, self.group_rows = draft, sample, keep_logits, group_rows
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
        if group := drafter.group_rows:
            room = min(room, group - 1 - len(self.seq.cache) % group)
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
