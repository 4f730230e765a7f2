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
        rows, tokens = len(seq.cache), [seq.pending]
        for _ in range(min(self.count, seq.room)):
            if known := self.lookup.after(seq.tokens, tokens[1:], self.shortest):
                break
            outputs = self.engine.run_after(rows + len(tokens) - 1, tokens[-1:])
            tokens.append(outputs.ids_N[0])
            if self.threshold and outputs.top(0)[1][0] < self.threshold:
                return Draft.chain(tokens)
        else:
            known = self.lookup.after(seq.tokens, tokens[1:], self.shortest)
        return Draft.chain([*tokens, *known][: 1 + seq.room])
