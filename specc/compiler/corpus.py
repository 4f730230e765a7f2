"""Write the index of a corpus into a bundle: its tokens and their suffix array."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from specc.runtime.corpus_index import CORPUS_FILE
from specc.runtime.errors import RecipeError
from specc.runtime.extras import package


def write_corpus(
    texts: Sequence[str], encode: Callable[[str], Sequence[int]], separators: Sequence[int], directory: Path
) -> None:
    """Write the index of some texts.

    Args:
        texts: the texts.
        encode: returns the tokens of a text.
        separators: tokens that end a text, as the first of them does in the index; empty joins the texts.
        directory: the bundle's.

    Raises:
        RecipeError: the library of suffix arrays is not installed, or the texts have no token.
    """
    try:
        from pydivsufsort import divsufsort
    except ImportError as e:
        raise RecipeError(f"a corpus needs pydivsufsort; pip install {package('corpus')}, or leave out --corpus") from e
    ends = list(separators[:1])
    tokens = np.fromiter(itertools.chain.from_iterable((*encode(text), *ends) for text in texts), np.int32)
    if len(tokens) <= len(ends) * len(texts):
        raise RecipeError("the corpus has no token; give a folder of text files")
    np.save(directory / CORPUS_FILE, np.stack([tokens, divsufsort(tokens).astype(np.int32)]), allow_pickle=False)
