"""Prompt lookup decoding (Saxena 2023): what followed the last few tokens when they were seen before.

The longest of the last `max_matching_ngram_size` tokens that occurs earlier is used, at its latest place.
"""

from __future__ import annotations

from ..draft import Draft
from ..sequence import Sequence
from .plain import Plain


class PromptLookup(Plain):
    def __init__(self, prompt_lookup_num_tokens: int = 10, max_matching_ngram_size: int = 3) -> None:
        self.count = prompt_lookup_num_tokens
        self.sizes = range(max_matching_ngram_size, 0, -1)
        self.seen: dict[tuple[int, ...], tuple[int, int]] = {}  # n-gram -> where it ended, last and last but one
        self.indexed: list[int] = []

    def propose(self, seq: Sequence) -> Draft:
        self._index(seq.tokens)
        for size in self.sizes:
            ends = self.seen.get(tuple(seq.tokens[-size:]))
            if ends and ends[1]:
                return Draft.chain([seq.pending, *seq.tokens[ends[1] : ends[1] + self.count]])
        return Draft.chain([seq.pending])

    def _index(self, tokens: list[int]) -> None:
        known = len(self.indexed)
        if self.indexed != tokens[:known]:
            self.seen, known = {}, 0
        for end in range(known + 1, len(tokens) + 1):
            for size in self.sizes:
                if size <= end:
                    ngram = tuple(tokens[end - size : end])
                    self.seen[ngram] = (end, self.seen.get(ngram, (0, 0))[0])
        self.indexed = list(tokens)
