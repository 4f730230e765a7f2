"""Chains by a recurrent trained head (EAGLE, Li et al. 2024, arXiv:2401.15077; EAGLE-3, arXiv:2503.01840)."""

from __future__ import annotations

from ..call import Call
from ..draft import ONE_SLOT, Accepted, Draft, Outputs, Verified
from ..draft_chain import chaining
from ..draft_head import running_head
from ..engine import Engine
from ..lengths import Confidence, Length, Schedule
from ..sequence import Sequence
from . import Drafter, Drafting, Proposal, check_counts, check_probability


class Eagle(Drafter):
    """A drafter of chains by a head that reads the target's states, and then its own."""

    def __init__(
        self,
        draft: Engine,
        feed: Engine,
        prefill: Engine,
        num_speculative_tokens: int = 4,
        assistant_confidence_threshold: float = 0.0,
    ) -> None:
        """Keep the engines and the parameters.

        Args:
            draft: an engine of the head with one slot.
            feed: an engine of the head for the tokens of a step.
            prefill: an engine of the head for many tokens.
            num_speculative_tokens: tokens of a draft at most.
            assistant_confidence_threshold: drafting stops after a token to which the head gave a smaller probability.
        """
        check_counts(num_speculative_tokens=num_speculative_tokens)
        check_probability(assistant_confidence_threshold=assistant_confidence_threshold)
        self.engine, self.engines = draft, (draft, feed, prefill)
        self.count, self.threshold = num_speculative_tokens, assistant_confidence_threshold

    def length(self) -> Length:
        """Make the length policy of one request."""
        return Length(Schedule(self.count), [Confidence(self.threshold)] if self.threshold else [])

    def open(self, seq: Sequence) -> EagleDrafting:
        return EagleDrafting(self, seq)


class EagleDrafting(Drafting[Eagle]):
    """The drafts of one request."""

    def __init__(self, drafter: Eagle, seq: Sequence) -> None:
        super().__init__(drafter, seq)
        self.length = drafter.length()

    def propose(self, room: int) -> Proposal:
        seq = self.seq
        root = (yield from running_head(self.drafter.engines, seq)) if room else None
        if root is None:
            return Draft.chain([seq.pending])
        engine, cache = self.drafter.engine, root.cache

        def make_call(slot: int, token: int, before: Outputs | None) -> Call:
            assert before is not None and before.next_state_NS is not None
            return Call(engine, cache, slot - 1, (token,), ONE_SLOT, {"state": before.next_state_NS})

        room = min(room, cache.store.capacity - len(seq.tokens) - 1)
        return (yield from chaining(make_call, seq, room=room, length=self.length, first=root.outputs))

    def observe(self, draft: Draft, verified: Verified, accepted: Accepted) -> None:
        self.length.observe(len(draft.tokens) - 1, len(accepted.slots) - 1)
