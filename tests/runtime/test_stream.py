"""Tokens to text as they come. The tokenizer has a token a byte, so most characters here are several tokens."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import tokenizer

from specc.runtime.stats import Stats
from specc.runtime.stream import Stream
from specc.runtime.text import Text


class Bytes(Text):
    def __init__(self) -> None:
        self.tokenizer = tokenizer()


TEXT = Bytes()
EOS = TEXT.tokenizer.token_to_id("<eos>")


def stream(tokens: list[int], *, size: int = 1, limit: int = 10**6, stop: tuple[str, ...] = ()) -> Stream:
    """A stream over steps of `size` tokens, of which there is no end."""

    def steps() -> Iterator[list[int]]:
        for i in range(0, len(tokens), size):
            yield tokens[i : i + size]
        pytest.fail("asked for more than it needs")

    limit = min(limit, len(tokens))
    return Stream(steps(), TEXT, Stats("any"), limit, (EOS,), stop)


def ids(text: str) -> list[int]:
    return TEXT.tokenizer.encode(text).ids


@given(st.text(st.sampled_from("ath é日🙂\n"), min_size=1), st.integers(1, 5))
def test_pieces_are_whole_characters_and_add_up_to_the_text(text, size):
    pieces = list(stream(ids(text), size=size))
    assert "".join(pieces) == text
    assert "" not in pieces and not any("\ufffd" in p for p in pieces)


def test_a_character_comes_with_its_last_token():
    tokens = ids("é🙂")
    assert len(tokens) == 6
    assert list(stream(tokens)) == ["é", "🙂"]
    assert list(stream(tokens, limit=5)) == ["é"]


def cut(text: str, stops: tuple[str, ...]) -> str:
    """The text before the stop string that is first complete; of two that end together the longer one counts."""
    for end in range(1, len(text) + 1):
        if done := [s for s in stops if text[:end].endswith(s)]:
            return text[: end - max(map(len, done))]
    return text


@given(st.text("ab日", min_size=1), st.lists(st.text("ab日", min_size=1, max_size=4), max_size=3).map(tuple))
def test_the_text_ends_before_the_first_stop_string(text, stops):
    """Spread over pieces, overlapping itself or another, or begun and not ended."""
    got = stream(ids(text), stop=stops)
    assert "".join(got) == cut(text, stops)
    assert got.finish_reason == ("stop" if cut(text, stops) != text else "length")


def test_only_what_may_be_a_stop_string_is_held_back():
    assert list(stream(ids("a--b->c"), stop=("->",))) == ["a", "-", "-b"]
    assert list(stream(ids("aab"), stop=("ac",))) == ["a", "ab"]


def test_a_stop_string_counts_as_tokens():
    got = stream(ids("no. yes"), stop=(".",))
    assert "".join(got) == "no"
    assert got.token_ids == ids("no.") and got.stats.new_tokens == 3


@pytest.mark.parametrize("size", [1, 3, 9])
def test_the_end_of_sequence_is_a_token_without_text(size):
    got = stream([*ids("ab"), EOS, *ids("cd")], size=size)
    assert "".join(got) == "ab"
    assert (got.finish_reason, got.token_ids, got.stats.new_tokens) == ("eos", [*ids("ab"), EOS], 3)


@pytest.mark.parametrize("size", [1, 3, 9])
def test_the_limit_counts_tokens_even_within_a_step(size):
    got = stream(ids("abcdefgh"), size=size, limit=4)
    assert "".join(got) == "abcd"
    assert (got.finish_reason, got.token_ids, got.stats.new_tokens) == ("length", ids("abcd"), 4)


def test_a_half_stop_string_at_the_end_is_text():
    assert "".join(stream(ids("ab<en"), stop=("<end>",))) == "ab<en"


def test_a_stream_is_its_own_iterator():
    got = stream(ids("ab"))
    assert next(got) == "a" and list(got) == ["b"]
