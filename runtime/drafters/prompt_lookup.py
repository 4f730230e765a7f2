"""Prompt lookup decoding (Saxena 2023, github.com/apoorvumang/prompt-lookup-decoding)."""

from __future__ import annotations

from collections.abc import Sequence as Tokens
from itertools import cycle, islice

from ..draft import Draft
from ..sequence import Sequence
from . import Drafter, check_counts


class PromptLookup(Drafter):
    """A drafter that copies what followed the last few tokens where they occur earlier in the text.

    It looks for the longest n-gram at the end of the text that occurs earlier, and takes its latest place. The longer
    the match, the more it copies: the full count after a match of full length, half of it after one token less, a
    third after two tokens less. A copy that reaches the end of the text continues with itself, as in LZ77.
    """

    def __init__(self, prompt_lookup_num_tokens: int = 11, max_matching_ngram_size: int = 3) -> None:
        """Make an empty index.

        Args:
            prompt_lookup_num_tokens: tokens copied at most.
            max_matching_ngram_size: tokens of the longest n-gram that is looked up.
        """
        check_counts(prompt_lookup_num_tokens=prompt_lookup_num_tokens, max_matching_ngram_size=max_matching_ngram_size)
        self.count, self.longest = prompt_lookup_num_tokens, max_matching_ngram_size
        self.last_end: dict[tuple[int, ...], int] = {}  # For each n-gram of the text, where it last ended.
        self.text: list[int] = []
        self.indexed = 0  # The index covers so many tokens of `text`.

    def propose(self, seq: Sequence) -> Draft:
        return Draft.chain([seq.pending, *self.after(seq.tokens)[: seq.room]])

    def after(
        self, tokens: list[int], drafted: Tokens[int] = (), shortest: int = 1, count: int | None = None
    ) -> list[int]:
        """Return what followed the last tokens where they occur earlier, or nothing if they do not.

        Args:
            tokens: the text. Nothing but its own end may be looked up and copied.
            drafted: tokens that are drafted already, after the text.
            shortest: tokens that must match at least.
            count: tokens to copy; None copies fewer after a shorter match.
        """
        # Without drafted tokens the last n-gram of the text is the one to look up. It must not find itself.
        self._index(tokens, len(tokens) if drafted else len(tokens) - 1)
        tail = [*tokens[-self.longest :], *drafted]
        for size in range(min(self.longest, len(tail)), shortest - 1, -1):
            end = self.last_end.get(tuple(tail[-size:]))
            if end:
                if count is None:
                    count = max(1, self.count // (1 + self.longest - size))
                return list(islice(cycle([*tokens[end : end + count], *drafted]), count))
        return []

    def _index(self, tokens: list[int], end: int) -> None:
        """Add the n-grams that end at `end` or before. Begin anew if `tokens` is another text."""
        if tokens is not self.text or end < self.indexed:
            self.last_end, self.text, self.indexed = {}, tokens, 0
        for last in range(self.indexed + 1, end + 1):
            for size in range(1, min(self.longest, last) + 1):
                self.last_end[tuple(tokens[last - size : last])] = last
        self.indexed = end
