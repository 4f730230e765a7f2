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

    def propose(self, seq: Sequence) -> Draft:
        feed = self.cache.sync(seq.tokens[:-1])
        (self.prefill if len(feed) > 1 else self.engine).extend(self.cache, feed)
        draft = self.chain(seq, len(self.cache))
        self.cache.commit(draft.tokens[:-1], range(draft.tree.slots - 1))  # the last one was not run
        return draft

    def chain(self, seq: Sequence, rows: int) -> Draft:
        """Draft below the pending token, which comes after so many rows."""
        tokens, probs, engine = [seq.pending], {}, self.engine
        for slot in range(min(self.count, seq.room, engine.store.capacity - len(seq.tokens) - 1)):
            outputs = engine.run_after(rows + slot, tokens[-1:])
            if self.sample and not seq.sampling.greedy:
                assert outputs.logits_NV is not None
                probs[slot] = seq.sampling.probs(outputs.logits_NV[0])
                tokens.append(seq.sampling.rng.pick(probs[slot]))
                probability = probs[slot][tokens[-1]]
            else:
                tokens.append(outputs.ids_N[0])
                probability = outputs.top(0)[1][0] if self.threshold else 1.0
            if probability < self.threshold:
                break
        return Draft.chain(tokens, probs)
