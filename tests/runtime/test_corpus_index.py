"""The index of a corpus: what follows any tokens, and what is refused."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toys import write_corpus

from specc.runtime.corpus_index import CORPUS_FILE, CorpusIndex
from specc.runtime.errors import RecipeError

TEXT = np.random.default_rng(3).integers(5, size=300).tolist()


@pytest.fixture
def index(tmp_path: Path) -> CorpusIndex:
    return CorpusIndex(write_corpus(TEXT, tmp_path), 5)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_a_pattern_is_found_wherever_it_occurs(size: int, index: CorpusIndex) -> None:
    for start in range(0, len(TEXT) - size, 7):
        pattern = TEXT[start : start + size]
        places = [i for i in range(len(TEXT)) if TEXT[i : i + size] == pattern]
        first, end = index.find(pattern)
        assert sorted(index.suffixes[first:end].tolist()) == places
        texts = [tuple(TEXT[i + size : i + size + 3]) for i in places]
        assert Counter(index.following(pattern, 3)) == Counter(text for text in texts if text)


def test_what_does_not_occur_has_no_place(tmp_path: Path) -> None:
    index = CorpusIndex(write_corpus([1, 2, 3, 1, 2], tmp_path), 9)
    assert index.following([2, 1], 4) == [] and index.following([8], 1) == []
    assert index.find([2])[1] - index.find([2])[0] == 2
    assert index.following([1, 2], 9) == [(3, 1, 2)]  # nothing follows the last one
    assert index.shares([2], 5) == {3: 1.0}


def test_shares_are_those_of_all_occurrences(index: CorpusIndex) -> None:
    after = Counter(b for a, b in pairwise(TEXT) if a == 2)
    assert index.shares([2], 9) == pytest.approx({token: n / after.total() for token, n in after.items()})
    assert len(index.shares([2], 3)) == 3


def test_many_occurrences_are_sampled_evenly(tmp_path: Path) -> None:
    index = CorpusIndex(write_corpus([0, 1] * 200 + [0, 2] * 200, tmp_path), 3)
    texts = index.following([0], 1, most=20)
    assert len(texts) == 20 and 8 <= texts.count((1,)) <= 12


@pytest.mark.parametrize(
    "table",
    [
        np.zeros((2, 0), np.int32),
        np.zeros((3, 4), np.int32),
        np.zeros(4, np.int32),
        np.zeros((2, 4), np.int64),
        np.array([[0, 5], [0, 1]], np.int32),  # a token that the vocabulary does not have
        np.array([[0, -1], [0, 1]], np.int32),
        np.array([[0, 1], [0, 2]], np.int32),  # a suffix behind the end
    ],
)
def test_a_file_that_is_no_index_is_refused(table: Any, tmp_path: Path) -> None:
    np.save(tmp_path / CORPUS_FILE, table)
    with pytest.raises(RecipeError, match=r"corpus\.npy .*; compile the bundle again"):
        CorpusIndex(tmp_path / CORPUS_FILE, 5)


@pytest.mark.parametrize("content", [b"", b"tokens", b"\x93NUMPY\x01\x00\x02\x00{}"])
def test_a_file_that_is_no_array_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / CORPUS_FILE).write_bytes(content)
    with pytest.raises(RecipeError, match=r"^corpus\.npy is not an index of a corpus; compile the bundle again$"):
        CorpusIndex(tmp_path / CORPUS_FILE, 5)
