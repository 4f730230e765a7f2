"""Speculative decoding with a draft model (Leviathan et al. 2023, arXiv:2211.17192): a chain, a token a step."""

from __future__ import annotations

from ..draft import Draft
from ..engine import Engine
from ..sequence import Cache, Sequence
from .plain import Plain


class DraftModel(Plain):
    """The draft engine has a cache of its own; `prefill` fills it with the prompt.

    num_speculative_tokens: tokens a draft.
    assistant_confidence_threshold: drafting stops after a token to which the draft gave less probability.
    """

    def __init__(
        self,
        draft: Engine,
        prefill: Engine,
        sample: bool = False,
        num_speculative_tokens: int = 4,
        assistant_confidence_threshold: float = 0.0,
    ) -> None:
        self.engine, self.prefill, self.sample = draft, prefill, sample
        self.count, self.threshold = num_speculative_tokens, assistant_confidence_threshold
        self.cache = Cache(draft.store)

    def rows(self, seq: Sequence) -> Cache:
        """The cache to draft in, holding the rows of all but the last few tokens."""
        return self.cache

    def propose(self, seq: Sequence) -> Draft:
        cache, tokens = self.rows(seq), [seq.pending]
        odds = {}
        feed = [*cache.sync(seq.tokens[:-1]), seq.pending]
        if len(feed) > 2:
            self.prefill.extend(cache, feed[:-1])
            feed = feed[-1:]
        for slot in range(min(self.count, cache.store.capacity - len(seq.tokens) - 1)):
            row = self.engine.extend(cache, feed)
            outputs = self.engine.outputs
            if self.sample and not seq.sampling.greedy:
                assert outputs.logits_NV is not None
                odds[slot] = seq.sampling.odds(outputs.logits_NV[row])
                tokens.append(seq.sampling.dice.pick(odds[slot]))
                probability = odds[slot][tokens[-1]]
            else:
                tokens.append(int(outputs.ids_N[row]))
                probability = outputs.top(row)[1][0] if self.threshold else 1.0
            feed = tokens[-1:]
            if probability < self.threshold:
                break
        return Draft.chain(tokens, odds)
