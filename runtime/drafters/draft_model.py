"""Speculative decoding with a draft model (Leviathan et al. 2023, arXiv:2211.17192)."""

from __future__ import annotations

from typing import Any

from ..draft import Accepted, Draft, Verified
from ..draft_chain import draft_chain
from ..engine import Engine, extending
from ..lengths import LengthPolicy
from ..sequence import Sequence
from . import Drafter, Drafting, Proposal


class DraftModel(Drafter):
    """A drafter of chains by a second, smaller model with a cache of its own."""

    takes_length = True

    def __init__(
        self, draft: Engine, prefill: Engine, sample: bool = False, keep_logits: bool = False, **length: Any
    ) -> None:
        """Keep the engines and the parameters.

        Args:
            draft: the draft model on one slot.
            prefill: the draft model on many slots, which fills its cache with the prompt.
            sample: sample the drafted tokens if the request samples.
            keep_logits: keep the logits of each slot in the draft, for a rule that asks for them.
            **length: the parameters of `LengthPolicy`.
        """
        self.engine, self.prefill = draft, prefill
        self.sample, self.keep_logits = sample, keep_logits
        self.length = LengthPolicy(**length)

    def open(self, seq: Sequence) -> DraftModelDrafting:
        return DraftModelDrafting(self, seq)


class DraftModelDrafting(Drafting[DraftModel]):
    """The draft model's rows of one request's text, and how long its drafts are."""

    def __init__(self, drafter: DraftModel, seq: Sequence) -> None:
        super().__init__(drafter, seq)
        self.length = drafter.length.open()

    def text(self) -> list[int]:
        """Return the tokens that the draft model reads, the pending one included."""
        return self.seq.tokens

    def propose(self, room: int) -> Proposal:
        drafter, seq = self.drafter, self.seq
        cache = seq.caches[drafter.engine.block.cache]
        feed = cache.sync(self.text()[:-1])
        yield from extending(drafter.prefill if len(feed) > 1 else drafter.engine, cache, feed)
        draft = yield from draft_chain(
            drafter.engine,
            seq,
            cache,
            room=room,
            length=self.length,
            sample=drafter.sample,
            keep_logits=drafter.keep_logits,
        )
        # All of the draft's tokens have rows now. The last one has none, unless its logits were asked for.
        last = draft.tree.slots - 1
        cache.commit(draft.tokens, range(last + 1 if last in draft.logits else last))
        return draft

    def observe(self, draft: Draft, verified: Verified, accepted: Accepted) -> None:
        self.length.observe(len(draft.tokens) - 1, len(accepted.slots) - 1)
