"""An index of a corpus, one file of a bundle: it finds what follows any tokens.

The file is a NumPy array [2, n] of int32: the tokens, and where each suffix begins, in lexicographic order. It is
mapped into memory, so a search reads a few pages of it.
"""

from __future__ import annotations

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
        table = np.load(path, mmap_mode="r", allow_pickle=False)
        if table.ndim != 2 or table.shape[0] != 2 or table.dtype != np.int32 or not table.shape[1]:
            raise RecipeError(f"{path.name} is not an index of a corpus; compile the bundle again")
        self.tokens, self.suffixes = table
        for numbers, limit in ((self.tokens, vocab_size), (self.suffixes, len(self.tokens))):
            if numbers.min() < 0 or numbers.max() >= limit:
                raise RecipeError(f"{path.name} has numbers out of range; compile the bundle again")

    def find(self, pattern: Tokens[int]) -> tuple[int, int]:
        """Return the range of the suffixes that begin with some tokens. It is empty if they never occur."""
        prefix, size = list(pattern), len(pattern)
        bounds: list[int] = []
        for beyond in (False, True):
            low, high = (bounds[0] if bounds else 0), len(self.suffixes)
            while low < high:
                middle = (low + high) // 2
                start = int(self.suffixes[middle])
                head = self.tokens[start : start + size].tolist()
                if head < prefix or (beyond and head == prefix):
                    low = middle + 1
                else:
                    high = middle
            bounds.append(low)
        return bounds[0], bounds[1]

    def following(self, pattern: Tokens[int], count: int, most: int = SAMPLED) -> list[tuple[int, ...]]:
        """Return what follows some tokens where they occur.

        Args:
            pattern: the tokens.
            count: tokens to return for each occurrence; fewer at the end of the corpus.
            most: occurrences to look at, at most.
        """
        first, end = self.find(pattern)
        places = np.linspace(first, end - 1, min(most, end - first)).astype(np.int64)
        starts = (self.suffixes[places] + len(pattern)).tolist()
        texts = [tuple(self.tokens[start : start + count].tolist()) for start in starts]
        return [text for text in texts if text]

    def shares(self, pattern: Tokens[int], most: int) -> dict[int, float]:
        """Return the tokens that follow some tokens most often, with their shares of all of them."""
        counts = Counter(text[0] for text in self.following(pattern, 1))
        total = sum(counts.values())
        return {token: count / total for token, count in counts.most_common(most)}
