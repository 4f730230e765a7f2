"""Layer-skip self-speculation: the target itself, with layers left out, drafts a chain.

Draft & Verify (Zhang et al. 2024, arXiv:2309.08168); LayerSkip (Elhoushi et al. 2024, arXiv:2404.16710).
"""

from __future__ import annotations

from ..draft_chain import draft_chain
from ..engine import Engine
from ..lengths import Confidence, Length, Schedule
from ..sequence import Sequence
from . import Drafter, Drafting, Proposal, check_counts, check_probability


class LayerSkip(Drafter):
    """A drafter of chains by an engine over the target's cache, such as the target with fewer layers or fewer bits.

    The engine reads the target's committed rows. It writes scratch rows past their end, which verify overwrites.
    """

    def __init__(
        self,
        draft: Engine,
        sample: bool = False,
        num_speculative_tokens: int = 4,
        assistant_confidence_threshold: float = 0.0,
        keep_logits: bool = False,
    ) -> None:
        """Keep the engine and the parameters.

        Args:
            draft: an engine of one slot over the target's cache.
            sample: sample the drafted tokens if the request samples.
            num_speculative_tokens: drafted tokens a step at most.
            assistant_confidence_threshold: drafting stops after a token to which the engine gave a smaller
                probability.
            keep_logits: keep the logits of each slot in the draft, for a rule that asks for them.
        """
        check_counts(num_speculative_tokens=num_speculative_tokens)
        check_probability(assistant_confidence_threshold=assistant_confidence_threshold)
        self.engine, self.sample, self.keep_logits = draft, sample, keep_logits
        self.count, self.threshold = num_speculative_tokens, assistant_confidence_threshold

    def open(self, seq: Sequence) -> LayerSkipDrafting:
        return LayerSkipDrafting(self, seq)


class LayerSkipDrafting(Drafting[LayerSkip]):
    """Calls over the target's cache of one request."""

    def propose(self, room: int) -> Proposal:
        drafter = self.drafter
        stops = [Confidence(drafter.threshold)] if drafter.threshold else []
        return draft_chain(
            drafter.engine,
            self.seq,
            self.seq.cache,
            room=room,
            length=Length(Schedule(drafter.count), stops),
            sample=drafter.sample,
            keep_logits=drafter.keep_logits,
        )
