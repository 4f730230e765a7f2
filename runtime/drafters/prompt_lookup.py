"""Prompt lookup decoding (Saxena 2023): what followed the last few tokens when they were seen before.

The longest of the last `max_matching_ngram_size` tokens that occurs earlier is used, at its latest place. The longer
what matches, the more is copied: all of `prompt_lookup_num_tokens` after a match of full length, half of them after one
token less, a third after two less.
A copy that comes to the end of the text goes on with itself, as in LZ77: what repeats is drafted to full length.
"""

from __future__ import annotations

from collections.abc import Sequence as Tokens
from itertools import cycle, islice

from ..draft import Draft
from ..sequence import Sequence
from .plain import Plain


class PromptLookup(Plain):
    def __init__(self, prompt_lookup_num_tokens: int = 11, max_matching_ngram_size: int = 3) -> None:
        self.count, self.longest = prompt_lookup_num_tokens, max_matching_ngram_size
        self.seen: dict[tuple[int, ...], int] = {}  # n-gram -> where it last ended
        self.text: list[int] = []  # whose first `known` tokens those are
        self.known = 0

    def propose(self, seq: Sequence) -> Draft:
        return Draft.chain([seq.pending, *self.after(seq.tokens)[: seq.room]])

    def after(
        self, tokens: list[int], drafted: Tokens[int] = (), shortest: int = 1, count: int | None = None
    ) -> list[int]:
        """What followed the last of `tokens` and `drafted`, `shortest` of them or more, when they were seen before.

        count: how many are copied; by default the fewer the shorter the match.
        """
        self._index(tokens, len(tokens) if drafted else len(tokens) - 1)  # or the last n-gram would find itself
        tail = [*tokens[-self.longest :], *drafted]
        for size in range(min(self.longest, len(tail)), shortest - 1, -1):
            if end := self.seen.get(tuple(tail[-size:])):
                if count is None:
                    count = max(1, self.count // (1 + self.longest - size))
                return list(islice(cycle([*tokens[end : end + count], *drafted]), count))
        return []

    def _index(self, tokens: list[int], end: int) -> None:
        """Know the n-grams that end at `end` or before."""
        if tokens is not self.text or end < self.known:
            self.seen, self.text, self.known = {}, tokens, 0
        for last in range(self.known + 1, end + 1):
            for size in range(1, min(self.longest, last) + 1):
                self.seen[tuple(tokens[last - size : last])] = last
        self.known = end
