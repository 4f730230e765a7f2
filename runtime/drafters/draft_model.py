"""Speculative decoding with a draft model (Leviathan et al. 2023, arXiv:2211.17192)."""

from __future__ import annotations

from ..draft import Draft
from ..draft_chain import draft_chain
from ..engine import Engine
from ..sequence import Cache, Sequence
from . import Drafter


class DraftModel(Drafter):
    """A drafter of chains by a second, smaller model with a cache of its own."""

    def __init__(
        self,
        draft: Engine,
        prefill: Engine,
        sample: bool = False,
        num_speculative_tokens: int = 4,
        assistant_confidence_threshold: float = 0.0,
    ) -> None:
        """Prepare the draft model's cache.

        Args:
            draft: the draft model on one slot.
            prefill: the draft model on many slots, which fills its cache with the prompt.
            sample: sample the drafted tokens if the request samples.
            num_speculative_tokens: drafted tokens a step at most.
            assistant_confidence_threshold: drafting stops after a token to which the draft model gave a smaller
                probability.
        """
        self.engine, self.prefill, self.sample = draft, prefill, sample
        self.count, self.threshold = num_speculative_tokens, assistant_confidence_threshold
        self.cache = Cache(draft.store)

    def propose(self, seq: Sequence) -> Draft:
        feed = self.cache.sync(seq.tokens[:-1])
        (self.prefill if len(feed) > 1 else self.engine).extend(self.cache, feed)
        draft = draft_chain(
            self.engine, seq, self.cache, count=self.count, threshold=self.threshold, sample=self.sample
        )
        # All of the draft's tokens have rows now but the last one.
        self.cache.commit(draft.tokens, range(draft.tree.slots - 1))
        return draft
