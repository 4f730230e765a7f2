"""Cascade Speculative Drafting (Chen et al. 2024, arXiv:2312.11462): two drafters, the cheap one first."""

from __future__ import annotations

from ..call import Call
from ..draft import ONE_SLOT, Draft
from ..engine import Engine
from ..sequence import Sequence
from . import Drafter
from .prompt_lookup import PromptLookup


class Cascade(Drafter):
    """A drafter of chains by prompt lookup, and by an engine while lookup finds nothing.

    Lookup is asked first at each place of the chain, since it costs nothing. If it finds nothing, the engine drafts one
    token, and lookup is asked again with that token. A copy by lookup ends the draft.
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
        """Make an empty index.

        Args:
            draft: an engine of one slot over the target's cache. Its rows are scratch.
            num_speculative_tokens: tokens of a draft that the engine gives at most.
            prompt_lookup_num_tokens: tokens of a draft that lookup copies at most.
            max_matching_ngram_size: tokens of the longest n-gram that is looked up.
            min_matching_ngram_size: tokens that must match before lookup copies.
            assistant_confidence_threshold: drafting stops after a token to which the engine gave a smaller
                probability.
        """
        self.engine, self.count, self.threshold = draft, num_speculative_tokens, assistant_confidence_threshold
        self.lookup = PromptLookup(prompt_lookup_num_tokens, max_matching_ngram_size)
        self.shortest = min_matching_ngram_size

    def propose(self, seq: Sequence) -> Draft:
        tokens = [seq.pending]
        copy = self.lookup.after(seq.tokens, (), self.shortest)
        for _ in range(min(self.count, seq.room)):
            if copy:
                break
            outputs = Call(self.engine, seq.cache, len(tokens) - 1, tokens[-1:], ONE_SLOT).run()
            tokens.append(outputs.ids_N[0])
            if self.threshold and outputs.top(0)[1][0] < self.threshold:
                break
            copy = self.lookup.after(seq.tokens, tokens[1:], self.shortest)
        return Draft.chain([*tokens, *copy][: 1 + seq.room])
