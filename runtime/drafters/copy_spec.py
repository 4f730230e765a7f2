"""CopySpec (Dumitru et al. 2025, arXiv:2502.08923)."""

from __future__ import annotations

from ..draft import Draft
from ..sequence import Sequence
from . import Drafter, Drafting, check_counts


class CopySpec(Drafter):
    """A drafter that copies what followed the last gamma tokens where they first occurred.

    Prompt lookup takes the latest place of the longest match, and drafts after a short match too. CopySpec takes the
    first place, and drafts nothing unless all gamma tokens match.

    It departs from the paper in two points. Its index holds the tokens themselves, so two n-grams never share an entry.
    Where nothing matches it takes a plain step: the paper can ask a draft model there.
    """

    def __init__(self, min_matching_ngram_size: int = 5, prompt_lookup_num_tokens: int = 10) -> None:
        """Keep the parameters.

        Args:
            min_matching_ngram_size: gamma, the tokens that must match.
            prompt_lookup_num_tokens: tokens copied; fewer at the end of the text.
        """
        check_counts(min_matching_ngram_size=min_matching_ngram_size, prompt_lookup_num_tokens=prompt_lookup_num_tokens)
        self.gamma, self.count = min_matching_ngram_size, prompt_lookup_num_tokens

    def open(self, seq: Sequence) -> CopySpecDrafting:
        return CopySpecDrafting(self, seq)


class CopySpecDrafting(Drafting[CopySpec]):
    """The index of one request's text: where each n-gram of gamma tokens ended first."""

    def __init__(self, drafter: CopySpec, seq: Sequence) -> None:
        super().__init__(drafter, seq)
        self.first_end: dict[tuple[int, ...], int] = {}
        self.indexed = drafter.gamma - 1  # The index covers the n-grams that end up to here.

    def draft(self, room: int) -> Draft:
        tokens, gamma = self.seq.tokens, self.drafter.gamma
        for end in range(self.indexed + 1, len(tokens)):
            self.first_end.setdefault(tuple(tokens[end - gamma : end]), end)
        self.indexed = max(self.indexed, len(tokens) - 1)
        end = self.first_end.get(tuple(tokens[-gamma:]), len(tokens))
        return Draft.chain([self.seq.pending, *tokens[end : end + min(self.drafter.count, room)]])
