"""Chains by a recurrent trained head (EAGLE, Li et al. 2024, arXiv:2401.15077; EAGLE-3, arXiv:2503.01840)."""

from __future__ import annotations

from typing import Any

from ..call import Call
from ..draft import ONE_SLOT, Accepted, Draft, Outputs, Verified
from ..draft_chain import chaining
from ..draft_head import HeadRoot, reading_engines, running_head
from ..engine import Engine
from ..errors import RecipeError
from ..lengths import LengthPolicy
from ..sequence import Sequence
from . import Drafter, Drafting, Proposal


class Eagle(Drafter):
    """A drafter of chains by a head that reads the target's states, and then its own."""

    takes_length = True

    def __init__(self, draft: Engine, feed: Engine, prefill: Engine, sample: bool = False, **length: Any) -> None:
        """Keep the engines and the parameters.

        Args:
            draft: an engine of the head with one slot.
            feed: an engine of the head for the tokens of a step.
            prefill: an engine of the head for many tokens.
            sample: sample the drafted tokens if the request samples. Tokens that the head does not know have the
                probability 0.
            **length: the parameters of `LengthPolicy`.

        Raises:
            RecipeError: a parameter is out of range, or the head returns no logits to sample from.
        """
        self.engine, self.engines = draft, reading_engines(draft, feed, prefill)
        self.sample, self.length = sample, LengthPolicy(**length)
        if sample and not all("logits" in engine.block.outputs for engine in (draft, feed, prefill)):
            raise RecipeError("the head returns no probabilities to sample drafts from; compile the bundle again")

    def open(self, seq: Sequence) -> EagleDrafting:
        return EagleDrafting(self, seq)


class EagleDrafting(Drafting[Eagle]):
    """The drafts of one request."""

    def __init__(self, drafter: Eagle, seq: Sequence) -> None:
        super().__init__(drafter, seq)
        self.length = drafter.length.open()

    def propose(self, room: int) -> Proposal:
        seq = self.seq
        root = (yield from running_head(self.drafter.engines, seq)) if room else None
        if root is None:
            return Draft.chain([seq.pending])
        engine, cache = self.drafter.engine, root.cache

        def make_call(slot: int, token: int, before: Outputs | None) -> Call:
            assert before is not None and before.next_state_NS is not None
            return Call(engine, cache, slot - 1, (token,), ONE_SLOT, {"state": before.next_state_NS})

        room = min(self.most(root, room), cache.store.capacity - len(seq.tokens) - 1)
        sample, first = self.drafter.sample, root.outputs
        return (yield from chaining(make_call, seq, room=room, length=self.length, first=first, sample=sample))

    def most(self, root: HeadRoot, room: int) -> int:
        """Return how many tokens are worth drafting, `room` at most, from the outputs of the pending token."""
        return room

    def observe(self, draft: Draft, verified: Verified, accepted: Accepted) -> None:
        self.length.observe(len(draft.tokens) - 1, len(accepted.slots) - 1)
