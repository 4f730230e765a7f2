"""An index of a corpus, one file of a bundle: it finds what follows any tokens.

The file is a NumPy array [2, n] of int32: the tokens, and where each suffix begins, in lexicographic order. It is
mapped into memory, so a search reads a few pages of it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Sequence as Tokens
from pathlib import Path

import numpy as np

from .errors import RecipeError

CORPUS_FILE = "corpus.npy"
SAMPLED = 512  # occurrences of one pattern that are looked at, evenly spread over all of them


class CorpusIndex:
    """The tokens of a corpus in order, and where each of their suffixes is."""

    def __init__(self, path: Path, vocab_size: int) -> None:
        """Map the file.

        Args:
            path: the file.
            vocab_size: token ids are below it.

        Raises:
            RecipeError: the file is not such an index. A stranger may have written it.
        """
        try:
            table = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError) as e:
            raise RecipeError(f"{path.name} is not an index of a corpus; compile the bundle again") from e
        if table.ndim != 2 or table.shape[0] != 2 or table.dtype != np.int32 or not table.shape[1]:
            raise RecipeError(f"{path.name} is not an index of a corpus; compile the bundle again")
        self.tokens, self.suffixes = table.view(np.ndarray)  # A slice of a memmap takes several times as long.
        for numbers, limit in ((self.tokens, vocab_size), (self.suffixes, len(self.tokens))):
            if numbers.min() < 0 or numbers.max() >= limit:
                raise RecipeError(f"{path.name} has numbers out of range; compile the bundle again")

    def find(self, pattern: Tokens[int]) -> tuple[int, int]:
        """Return the range of the suffixes that begin with some tokens. It is empty if they never occur."""
        prefix, size, count = list(pattern), len(pattern), len(self.suffixes)

        def head(place: int) -> list[int]:
            start = self.suffixes[place]
            tokens: list[int] = self.tokens[start : start + size].tolist()
            return tokens

        places, reach = range(count), 1
        first = bisect_left(places, prefix, key=head)
        while first + reach < count and head(first + reach) == prefix:  # Most patterns are rare.
            reach *= 2
        return first, bisect_right(places, prefix, first, min(count, first + reach), key=head)

    def following(self, pattern: Tokens[int], count: int, most: int = SAMPLED) -> list[tuple[int, ...]]:
        """Return what follows some tokens where they occur.

        Args:
            pattern: the tokens.
            count: tokens to return for each occurrence; fewer at the end of the corpus.
            most: occurrences to look at, at most.
        """
        starts = self._ends(pattern, most).tolist()
        return [tuple(self.tokens[start : start + count].tolist()) for start in starts]

    def shares(self, pattern: Tokens[int], most: int) -> dict[int, float]:
        """Return the tokens that follow some tokens most often, with their shares of all of them."""
        counts = Counter(self.tokens[self._ends(pattern, SAMPLED)].tolist())
        total = sum(counts.values())
        return {token: count / total for token, count in counts.most_common(most)}

    def _ends(self, pattern: Tokens[int], most: int) -> np.ndarray:
        """Return where some tokens end, at `most` of the places where they occur and are followed by a token."""
        first, end = self.find(pattern)
        suffixes = self.suffixes[first:end]
        if len(suffixes) > most:
            suffixes = suffixes[np.linspace(0, len(suffixes) - 1, most).astype(np.int64)]
        ends: np.ndarray = suffixes + len(pattern)
        return ends[ends < len(self.tokens)]
