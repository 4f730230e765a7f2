"""Prompt lookup decoding (Saxena 2023, github.com/apoorvumang/prompt-lookup-decoding)."""

from __future__ import annotations

from collections.abc import Sequence as Tokens
from itertools import cycle, islice

from ..draft import Draft
from ..sequence import Sequence
from . import Drafter, Drafting, check_counts


class PromptLookup(Drafter):
    """A drafter that copies what followed the last few tokens where they occur earlier in the text.

    It looks for the longest n-gram at the end of the text that occurs earlier, and takes its latest place. The longer
    the match, the more it copies: the full count after a match of full length, half of it after one token less, a
    third after two tokens less. A copy that reaches the end of the text continues with itself, as in LZ77.
    """

    def __init__(self, prompt_lookup_num_tokens: int = 11, max_matching_ngram_size: int = 3) -> None:
        """Keep the parameters.

        Args:
            prompt_lookup_num_tokens: tokens copied at most.
            max_matching_ngram_size: tokens of the longest n-gram that is looked up.
        """
        check_counts(prompt_lookup_num_tokens=prompt_lookup_num_tokens, max_matching_ngram_size=max_matching_ngram_size)
        self.count, self.longest = prompt_lookup_num_tokens, max_matching_ngram_size

    def open(self, seq: Sequence) -> PromptLookupDrafting:
        return PromptLookupDrafting(self, seq)


class PromptLookupDrafting(Drafting[PromptLookup]):
    """The index of one request's text."""

    def __init__(self, drafter: PromptLookup, seq: Sequence) -> None:
        super().__init__(drafter, seq)
        self.index = NgramIndex(seq.tokens, drafter.longest)

    def draft(self, room: int) -> Draft:
        copy = self.index.after(self.drafter.count)
        return Draft.chain([self.seq.pending, *copy[:room]])


class NgramIndex:
    """An index of a text that grows: for each n-gram, where it last ended."""

    def __init__(self, tokens: list[int], longest: int) -> None:
        """Make an empty index.

        Args:
            tokens: the text. Tokens that are appended later are found too.
            longest: tokens of the longest n-gram that is looked up.
        """
        self.tokens, self.longest = tokens, longest
        self.last_end: dict[tuple[int, ...], int] = {}
        self.indexed = 0  # The index covers so many tokens.

    def after(self, count: int, drafted: Tokens[int] = (), shortest: int = 1, *, whole: bool = False) -> list[int]:
        """Return what followed the last tokens where they occur earlier, or nothing if they do not.

        Args:
            count: tokens to copy. After a shorter match fewer are copied.
            drafted: tokens that are drafted already, after the text.
            shortest: tokens that must match at least.
            whole: copy as many tokens after a shorter match too.
        """
        size, end = self._find(drafted, shortest)
        if not size:
            return []
        if not whole:
            count = max(1, count // (1 + self.longest - size))
        return self._copy(end, count, drafted)

    def longest_match(self, count: int) -> tuple[int, list[int]]:
        """Return how many of the last tokens occur earlier, and what followed them there; 0 and nothing if none do.

        Args:
            count: tokens to copy, after a match of any length.
        """
        size, end = self._find()
        return size, self._copy(end, count) if size else []

    def _find(self, drafted: Tokens[int] = (), shortest: int = 1) -> tuple[int, int]:
        """Return the length of the longest match at the end of the text and `drafted`, and where it ended last."""
        tokens, longest = self.tokens, self.longest
        # Without drafted tokens the last n-gram of the text is the one to look up. It must not find itself.
        self._index(len(tokens) if drafted else len(tokens) - 1)
        tail = [*tokens[-longest:], *drafted]
        for size in range(min(longest, len(tail)), shortest - 1, -1):
            end = self.last_end.get(tuple(tail[-size:]))
            if end:
                return size, end
        return 0, 0

    def _copy(self, end: int, count: int, drafted: Tokens[int] = ()) -> list[int]:
        """Return `count` tokens from a place of the text on. A copy that reaches its end goes on with itself."""
        return list(islice(cycle([*self.tokens[end : end + count], *drafted]), count))

    def _index(self, end: int) -> None:
        """Add the n-grams that end at `end` or before."""
        tokens = self.tokens
        for last in range(self.indexed + 1, end + 1):
            for size in range(1, min(self.longest, last) + 1):
                self.last_end[tuple(tokens[last - size : last])] = last
        self.indexed = max(self.indexed, end)
