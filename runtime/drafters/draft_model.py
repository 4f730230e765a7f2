"""Speculative decoding with a draft model (Leviathan et al. 2023, arXiv:2211.17192)."""

from __future__ import annotations

from ..draft import Accepted, Draft, Verified
from ..draft_chain import draft_chain
from ..engine import Engine, extending
from ..lengths import Confidence, Cumulative, Fallback, Length, Stop, schedule_of
from ..sequence import Sequence
from . import Drafter, Drafting, Proposal, check_counts, check_probability


class DraftModel(Drafter):
    """A drafter of chains by a second, smaller model with a cache of its own."""

    def __init__(
        self,
        draft: Engine,
        prefill: Engine,
        sample: bool = False,
        num_speculative_tokens: int = 4,
        assistant_confidence_threshold: float = 0.0,
        rejection_threshold: float = 1.0,
        num_assistant_tokens_schedule: str = "constant",
        fallback_threshold: float = 0.0,
        keep_logits: bool = False,
    ) -> None:
        """Keep the engines and the parameters.

        Args:
            draft: the draft model on one slot.
            prefill: the draft model on many slots, which fills its cache with the prompt.
            sample: sample the drafted tokens if the request samples.
            num_speculative_tokens: drafted tokens a step at most.
            assistant_confidence_threshold: drafting stops after a token to which the draft model gave a smaller
                probability.
            rejection_threshold: drafting stops once the probability that a token is rejected exceeds this, by the
                draft model's own probabilities. 1 never stops.
            num_assistant_tokens_schedule: the schedule of `num_speculative_tokens`, one of `lengths.SCHEDULES`.
            fallback_threshold: drafting stops before a token if the draft model's largest probability is smaller.
            keep_logits: keep the logits of each slot in the draft, for a rule that asks for them.
        """
        check_counts(num_speculative_tokens=num_speculative_tokens)
        check_probability(
            assistant_confidence_threshold=assistant_confidence_threshold,
            rejection_threshold=rejection_threshold,
            fallback_threshold=fallback_threshold,
        )
        self.engine, self.prefill = draft, prefill
        self.sample, self.keep_logits = sample, keep_logits
        self.count, self.schedule = num_speculative_tokens, schedule_of(num_assistant_tokens_schedule)
        self.confidence, self.rejection = assistant_confidence_threshold, rejection_threshold
        self.fallback = fallback_threshold

    def length(self) -> Length:
        """Return the length policy of a new request."""
        stops: list[Stop] = [Confidence(self.confidence)] if self.confidence else []
        stops += [Cumulative(self.rejection)] if self.rejection < 1 else []
        stops += [Fallback(self.fallback)] if self.fallback else []
        return Length(self.schedule(self.count), stops)

    def open(self, seq: Sequence) -> DraftModelDrafting:
        return DraftModelDrafting(self, seq)


class DraftModelDrafting(Drafting[DraftModel]):
    """The draft model's rows of one request's text, and how long its drafts are."""

    def __init__(self, drafter: DraftModel, seq: Sequence) -> None:
        super().__init__(drafter, seq)
        self.length = drafter.length()

    def propose(self, room: int) -> Proposal:
        drafter, seq = self.drafter, self.seq
        cache = seq.caches[drafter.engine.block.cache]
        feed = cache.sync(seq.tokens[:-1])
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
