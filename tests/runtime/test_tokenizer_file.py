"""A tokenizer.json that would abort the library is refused before the library reads it."""

from __future__ import annotations

import json
from typing import Any

import pytest
from tokenizers import Tokenizer

from specc.runtime.tokenizer_file import check


def file(prefix: Any, merges: Any, **fields: Any) -> bytes:
    """Return the content of a file with a byte-pair encoding."""
    vocab = {token: number for number, token in enumerate(["a", "##b", "ab", "Ġ", "ĠĠ"])}
    model = {"type": "BPE", "continuing_subword_prefix": prefix, "vocab": vocab, "merges": merges, **fields}
    return json.dumps({"version": "1.0", "added_tokens": [], "model": model}).encode()


@pytest.mark.parametrize(("prefix", "merges"), [(None, [["Ġ", "Ġ"]]), ("##", [["a", "##b"]]), ("", [["Ġ", "Ġ"]])])
def test_merges_that_fit_are_read(prefix: str | None, merges: list[list[str]]) -> None:
    check(file(prefix, merges))
    Tokenizer.from_buffer(file(prefix, merges))


@pytest.mark.parametrize("merges", [[["a", "##b"], ["Ġ", "Ġ"]], ["a ##b", "Ġ Ġ"]])
def test_a_merge_without_the_prefix_is_refused(merges: list[Any]) -> None:
    with pytest.raises(ValueError, match="its merge 'Ġ' does not begin with the prefix '##'"):
        check(file("##", merges))


def test_a_prefix_under_an_escaped_name_is_noticed() -> None:
    data = file("x", [["Ġ", "Ġ"]]).replace(b'"continuing', b'"\\u0063ontinuing')
    with pytest.raises(ValueError, match="does not begin"):
        check(data)


def test_other_models_and_odd_files_are_left_to_the_library() -> None:
    for data in (
        b"[]",
        b'{"model": 1}',
        b'{"model": {"type": "Unigram", "vocab": []}}',
        file("##", {}),
        file("##", [1]),
    ):
        check(data)


def test_what_is_not_json_is_refused() -> None:
    with pytest.raises(ValueError, match="Expecting"):
        check(b"not JSON")
