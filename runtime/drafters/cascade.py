"""Cascade Speculative Drafting (Chen et al. 2024, arXiv:2312.11462): two drafters, the cheap one first."""

from __future__ import annotations

from ..call import Call
from ..draft import ONE_SLOT, Draft
from ..engine import Engine
from ..sequence import Sequence
from . import Drafter, Drafting, Proposal, check_counts, check_probability
from .prompt_lookup import NgramIndex


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
        """Keep the engine and the parameters.

        Args:
            draft: an engine of one slot over the target's cache. Its rows are scratch.
            num_speculative_tokens: tokens of a draft that the engine gives at most.
            prompt_lookup_num_tokens: tokens of a draft that lookup copies at most.
            max_matching_ngram_size: tokens of the longest n-gram that is looked up.
            min_matching_ngram_size: tokens that must match before lookup copies.
            assistant_confidence_threshold: drafting stops after a token to which the engine gave a smaller
                probability.
        """
        check_counts(
            num_speculative_tokens=num_speculative_tokens,
            prompt_lookup_num_tokens=prompt_lookup_num_tokens,
            max_matching_ngram_size=max_matching_ngram_size,
            min_matching_ngram_size=min_matching_ngram_size,
        )
        check_probability(assistant_confidence_threshold=assistant_confidence_threshold)
        self.engine, self.count, self.threshold = draft, num_speculative_tokens, assistant_confidence_threshold
        self.copied, self.longest, self.shortest = (
            prompt_lookup_num_tokens,
            max_matching_ngram_size,
            min_matching_ngram_size,
        )

    def open(self, seq: Sequence) -> CascadeDrafting:
        return CascadeDrafting(self, seq)


class CascadeDrafting(Drafting[Cascade]):
    """The index of one request's text, and calls over its cache."""

    def __init__(self, drafter: Cascade, seq: Sequence) -> None:
        super().__init__(drafter, seq)
        self.index = NgramIndex(seq.tokens, drafter.longest)

    def propose(self, room: int) -> Proposal:
        drafter, seq = self.drafter, self.seq
        tokens, threshold = [seq.pending], drafter.threshold
        copy = self.index.after(drafter.copied, (), drafter.shortest)
        for _ in range(min(drafter.count, room)):
            if copy:
                break
            outputs = yield Call(drafter.engine, seq.cache, len(tokens) - 1, tokens[-1:], ONE_SLOT)
            tokens.append(outputs.ids_N[0])
            if threshold and outputs.top(0)[1][0] < threshold:
                break
            copy = self.index.after(drafter.copied, tokens[1:], drafter.shortest)
        return Draft.chain([*tokens, *copy][: 1 + room])
