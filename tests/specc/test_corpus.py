"""A corpus is a folder of text files, and what is none is one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from specc.corpus import check_corpus, corpus_files, read_corpus
from specc.runtime.errors import PromptError


def test_a_folder_gives_its_texts_in_the_order_of_their_names(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name, text in (("b/1.txt", "two"), ("a.md", "one"), (".hidden", "no")):
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "c.bin").write_bytes(b"\xff\xfe")
    assert read_corpus(tmp_path) == ["one", "two"]
    assert read_corpus(tmp_path / "a.md") == ["one"]


def test_what_is_no_corpus_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PromptError, match=r"no corpus at .*none; give a folder of text files, or one file"):
        corpus_files(tmp_path / "none")
    with pytest.raises(PromptError, match="is empty; give a folder with some text"):
        corpus_files(tmp_path)
    (tmp_path / "c.bin").write_bytes(b"\xff\xfe")
    with pytest.raises(PromptError, match="has no text in UTF-8; give a folder of text files"):
        read_corpus(tmp_path)
    with pytest.raises(PromptError, match="has no text in UTF-8; give a folder of text files"):
        check_corpus(tmp_path)
    monkeypatch.setattr("specc.corpus.MOST_BYTES", 1)
    with pytest.raises(PromptError, match="has 2 bytes; 1 are the most: give fewer files"):
        corpus_files(tmp_path)
