"""Cascade Speculative Drafting (Chen et al. 2024, arXiv:2312.11462) over a recurrent trained head (EAGLE-3)."""

from __future__ import annotations

from ..call import Call
from ..draft import ONE_SLOT, Draft, Outputs
from ..draft_head import reading_engines, running_head
from ..engine import Engine
from ..sequence import Sequence
from . import Proposal
from .cascade import Cascade, CascadeDrafting


class EagleCascade(Cascade):
    """A drafter of chains by prompt lookup, and by a trained head while lookup finds nothing.

    It asks as `Cascade` does: lookup first at each place of the chain, then the head for one token. A copy ends the
    draft. A draft that begins with a copy needs no call of the head, which reads the accepted tokens when it is asked
    again.
    """

    def __init__(
        self,
        draft: Engine,
        feed: Engine,
        prefill: Engine,
        num_speculative_tokens: int = 6,
        prompt_lookup_num_tokens: int = 11,
        max_matching_ngram_size: int = 6,
        min_matching_ngram_size: int = 4,
        assistant_confidence_threshold: float = 0.0,
    ) -> None:
        """Keep the engines and the parameters.

        Args:
            draft: an engine of the head with one slot.
            feed: an engine of the head for the tokens of a step.
            prefill: an engine of the head for many tokens.
            num_speculative_tokens: tokens of a draft that the head gives at most.
            prompt_lookup_num_tokens: tokens of a draft that lookup copies at most. A draft has as many tokens as the
                larger of the two numbers at most.
            max_matching_ngram_size: tokens of the longest n-gram that is looked up.
            min_matching_ngram_size: tokens that must match before lookup copies.
            assistant_confidence_threshold: drafting stops after a token to which the head gave a smaller probability.
        """
        super().__init__(
            draft,
            num_speculative_tokens,
            prompt_lookup_num_tokens,
            max_matching_ngram_size,
            min_matching_ngram_size,
            assistant_confidence_threshold,
        )
        self.engines = reading_engines(draft, feed, prefill)

    def open(self, seq: Sequence) -> EagleCascadeDrafting:
        return EagleCascadeDrafting(self, seq)


class EagleCascadeDrafting(CascadeDrafting):
    """The index of one request's text, and calls of the head."""

    drafter: EagleCascade

    def propose(self, room: int) -> Proposal:
        return (yield from super().propose(min(room, max(self.drafter.count, self.drafter.copied))))

    def _draft(self, room: int) -> Proposal:
        drafter, seq = self.drafter, self.seq
        root = (yield from running_head(drafter.engines, seq)) if room else None
        if root is None:
            return Draft.chain([seq.pending])
        engine, cache = drafter.engine, root.cache

        def make_call(slot: int, token: int, before: Outputs | None) -> Call:
            assert before is not None and before.next_state_NS is not None
            return Call(engine, cache, slot - 1, (token,), ONE_SLOT, {"state": before.next_state_NS})

        room = min(room, cache.store.capacity - len(seq.tokens) - 1)
        return (yield from self._take_turns(make_call, room, root.outputs))
