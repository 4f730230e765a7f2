"""Speculative decoding with a draft model (Leviathan et al. 2023, arXiv:2211.17192)."""

from __future__ import annotations

from ..draft_chain import draft_chain
from ..engine import Engine, extending
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
            keep_logits: keep the logits of each slot in the draft, for a rule that asks for them.
        """
        check_counts(num_speculative_tokens=num_speculative_tokens)
        check_probability(assistant_confidence_threshold=assistant_confidence_threshold)
        self.engine, self.prefill = draft, prefill
        self.sample, self.keep_logits = sample, keep_logits
        self.count, self.threshold = num_speculative_tokens, assistant_confidence_threshold

    def open(self, seq: Sequence) -> DraftModelDrafting:
        return DraftModelDrafting(self, seq)


class DraftModelDrafting(Drafting[DraftModel]):
    """The draft model's rows of one request's text."""

    def propose(self, room: int) -> Proposal:
        drafter, seq = self.drafter, self.seq
        cache = seq.caches[drafter.engine.block.cache]
        feed = cache.sync(seq.tokens[:-1])
        yield from extending(drafter.prefill if len(feed) > 1 else drafter.engine, cache, feed)
        draft = yield from draft_chain(
            drafter.engine,
            seq,
            cache,
            count=min(drafter.count, room),
            threshold=drafter.threshold,
            sample=drafter.sample,
            keep_logits=drafter.keep_logits,
        )
        # All of the draft's tokens have rows now but the last one.
        cache.commit(draft.tokens, range(draft.tree.slots - 1))
        return draft
