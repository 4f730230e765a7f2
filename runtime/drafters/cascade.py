"""A cascade of two drafters (Cascade Speculative Drafting, Chen et al. 2024, arXiv:2312.11462): the cheap one first.

At every place of the chain prompt lookup is asked, which costs nothing; where it knows nothing the draft engine gives
one token, and lookup is asked again with that token in hand. What lookup knows ends the draft.
"""

from __future__ import annotations

from ..draft import Draft
from ..engine import Engine
from ..sequence import Sequence
from .plain import Plain
from .prompt_lookup import PromptLookup


class Cascade(Plain):
    """`draft` is an engine over the target's cache; its rows are scratch past the end.

    num_speculative_tokens: tokens of the engine's in a draft. min_matching_ngram_size: tokens that must match.
    assistant_confidence_threshold: drafting stops after a token to which the engine gave less probability.
    """

    def __init__(
        self,
        draft: Engine,
        num_speculative_tokens: int = 3,
        prompt_lookup_num_tokens: int = 8,
        max_matching_ngram_size: int = 3,
        min_matching_ngram_size: int = 2,
        assistant_confidence_threshold: float = 0.0,
    ) -> None:
        self.engine, self.count, self.threshold = draft, num_speculative_tokens, assistant_confidence_threshold
        self.lookup = PromptLookup(prompt_lookup_num_tokens, max_matching_ngram_size)
        self.shortest = min_matching_ngram_size

    def propose(self, seq: Sequence) -> Draft:
        cache, feed = seq.cache.fork(), [seq.pending]
        drafted: list[int] = []
        for _ in range(self.count):
            if known := self.lookup.after(seq.tokens, drafted, self.shortest):
                break
            row = self.engine.extend(cache, feed)
            feed = [int(self.engine.outputs.ids_N[row])]
            drafted += feed
            if self.threshold and self.engine.outputs.top(row)[1][0] < self.threshold:
                return Draft.chain([seq.pending, *drafted])
        else:
            known = self.lookup.after(seq.tokens, drafted, self.shortest)
        return Draft.chain([seq.pending, *drafted, *known])
