"""Choose the tokens that a head knows: those that the recorded text has most often."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor


def choose_vocabulary(texts: Iterable[Tensor], size: int, vocab_size: int) -> tuple[Tensor, float]:
    """Choose the most frequent tokens.

    Args:
        texts: the tokens of each text.
        size: the number of tokens to choose.
        vocab_size: the number of tokens that the model has.

    Returns:
        The tokens in ascending order, [size] int64, and the share of the text that they make. Of tokens that are
        equally frequent the smaller ones count first, which byte-pair encodings learned first.
    """
    counts = _count(texts, vocab_size)
    order = torch.argsort(counts, descending=True, stable=True)
    chosen_tokens = order[: min(size, vocab_size)].sort().values
    return chosen_tokens, _share(counts, chosen_tokens)


def coverage_of(texts: Iterable[Tensor], vocabulary: Tensor | None, vocab_size: int) -> float:
    """Return the share of the texts' tokens that are in a vocabulary, [V'] int64. None has all tokens."""
    return 1.0 if vocabulary is None else _share(_count(texts, vocab_size), vocabulary)


def _count(texts: Iterable[Tensor], vocab_size: int) -> Tensor:
    """Return how often each token occurs, [V] float64."""
    counts = torch.zeros(vocab_size, dtype=torch.float64)
    for text in texts:
        counts += torch.bincount(text, minlength=vocab_size)[:vocab_size]
    return counts


def _share(counts: Tensor, vocabulary: Tensor) -> float:
    return float(counts[vocabulary].sum() / counts.sum().clamp(min=1))
