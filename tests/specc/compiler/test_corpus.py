"""The compiler writes the index that the runtime reads."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from specc.compiler.corpus import write_corpus
from specc.runtime.corpus_index import CORPUS_FILE, CorpusIndex
from specc.runtime.errors import RecipeError
from specc.runtime.extras import package

pytestmark = pytest.mark.torch


def encode(text: str) -> list[int]:
    return [ord(letter) for letter in text]


def test_texts_are_indexed_with_an_end_between_them(tmp_path: Path) -> None:
    write_corpus(["abcab", "abd"], encode, [7, 8], tmp_path)
    index = CorpusIndex(tmp_path / CORPUS_FILE, 128)
    assert index.tokens.tolist() == [*encode("abcab"), 7, *encode("abd"), 7]
    suffixes = [index.tokens[start:].tolist() for start in index.suffixes.tolist()]
    assert suffixes == sorted(suffixes) and len({*index.suffixes.tolist()}) == 10
    assert sorted(index.following(encode("ab"), 1)) == [(7,), (99,), (100,)]


def test_a_corpus_without_tokens_or_without_its_library_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RecipeError, match="the corpus has no token; give a folder of text files"):
        write_corpus(["", ""], encode, [7], tmp_path)
    monkeypatch.setitem(sys.modules, "pydivsufsort", None)
    with pytest.raises(RecipeError, match=f"pip install {re.escape(package('corpus'))}, or leave out --corpus"):
        write_corpus(["a"], encode, [], tmp_path)
