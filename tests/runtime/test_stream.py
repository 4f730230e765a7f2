"""Tokens to text as they come. The tokenizer has a token a byte, so most characters here are several tokens."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable, Iterator
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import tokenizer

from specc.runtime.decoder import Decoder
from specc.runtime.errors import PromptError
from specc.runtime.stats import Stats
from specc.runtime.stream import Ending, Generation, Stream, one_or_several, token_limit
from specc.runtime.text import Text


class Bytes(Text):
    """A text whose tokens are bytes."""

    def __init__(self) -> None:
        self.tokenizer = tokenizer()


TEXT = Bytes()
EOS = int(TEXT.tokenizer.encode("<eos>").ids[0])


class Listed(Decoder):
    """Steps whose tokens are known."""

    def __init__(self, steps: Iterable[list[int]]) -> None:
        self.steps = iter(steps)

    def advance(self) -> list[int]:
        return next(self.steps)


def stream(
    tokens: list[int],
    *,
    size: int = 1,
    limit: int = 10**6,
    stop: tuple[str, ...] = (),
    eos: tuple[int, ...] = (EOS,),
    stop_token_ids: tuple[int, ...] = (),
) -> Stream:
    """Make a stream over steps of `size` tokens. It fails if it asks for more steps than it needs."""

    def steps() -> Iterator[list[int]]:
        for i in range(0, len(tokens), size):
            yield tokens[i : i + size]
        pytest.fail("asked for more than it needs")

    ending = Ending(max_new_tokens=min(limit, len(tokens)), eos=eos, stop=stop, stop_token_ids=stop_token_ids)
    return Stream(Listed(steps()), TEXT, Stats(recipe="any"), ending)


def ids(text: str) -> list[int]:
    return list(TEXT.tokenizer.encode(text).ids)


@given(st.text(st.sampled_from("ath é日🙂\n"), min_size=1), st.integers(1, 5))
def test_pieces_are_whole_characters_and_add_up_to_the_text(text: str, size: int) -> None:
    pieces = list(stream(ids(text), size=size))
    assert "".join(pieces) == text
    assert "" not in pieces and not any("\ufffd" in p for p in pieces)


def test_a_character_comes_with_its_last_token() -> None:
    tokens = ids("é🙂")
    assert len(tokens) == 6
    assert list(stream(tokens)) == ["é", "🙂"]


def test_a_part_of_a_character_at_the_end_is_shown_as_transformers_shows_it() -> None:
    assert list(stream(ids("é🙂"), limit=5)) == ["é", "\ufffd"]
    assert list(stream([*ids("🙂")[:3], EOS])) == ["\ufffd"]
    assert list(stream([*ids("a🙂")[:3]], stop=("\ufffd",))) == ["a"]


def test_a_special_token_may_be_a_stop_string_or_a_part_of_one() -> None:
    """It has no text, so it is found, and never shown."""
    tokens = [*ids("ab"), EOS, *ids("\ncd")]
    for stop in ("<eos>", "<eos>\n", "b<eos>"):
        got = stream(tokens, stop=(stop,), eos=())
        assert "".join(got) == ("a" if stop[0] == "b" else "ab")
        assert got.finish_reason == "stop"
    assert stream(tokens, stop=("<eos>",), eos=()).rest().token_ids == tokens[:3]
    got = stream(tokens, stop=("<eos>x",), eos=())
    assert "".join(got) == "ab\ncd" and got.finish_reason == "length"
    assert "".join(stream([*tokens, EOS], stop=("<eos><eos>",), eos=())) == "ab\ncd"


@pytest.mark.parametrize("size", [1, 3, 9])
def test_a_stop_token_is_a_token_without_text(size: int) -> None:
    tokens = ids("abcd")
    got = stream(tokens, size=size, stop_token_ids=(tokens[2], 7))
    assert "".join(got) == "ab"
    assert (got.finish_reason, got.token_ids, got.stats.new_tokens) == ("stop", tokens[:3], 3)


def test_the_text_continues_that_of_the_prompt() -> None:
    ending = Ending(max_new_tokens=2)
    tokens = ids("日")
    got = Stream(Listed([tokens[1:]]), TEXT, Stats(recipe="any"), ending, tokens[:1])
    assert "".join(got) == "日"


def cut(text: str, stops: tuple[str, ...]) -> str:
    """Return the text before the stop string that is complete first; of two that end together the longer one counts."""
    for end in range(1, len(text) + 1):
        complete = [s for s in stops if text[:end].endswith(s)]
        if complete:
            return text[: end - max(map(len, complete))]
    return text


@given(st.text("ab日", min_size=1), st.lists(st.text("ab日", min_size=1, max_size=4), max_size=3).map(tuple))
def test_the_text_ends_before_the_first_stop_string(text: str, stops: tuple[str, ...]) -> None:
    """Spread over pieces, overlapping itself or another, or begun and not ended."""
    got = stream(ids(text), stop=stops)
    assert "".join(got) == cut(text, stops)
    assert got.finish_reason == ("stop" if cut(text, stops) != text else "length")


def test_only_what_may_be_a_stop_string_is_held_back() -> None:
    assert list(stream(ids("a--b->c"), stop=("->",))) == ["a", "-", "-b"]
    assert list(stream(ids("aab"), stop=("ac",))) == ["a", "ab"]


def test_without_stop_strings_each_step_shows_its_text_at_once() -> None:
    """A step that is not asked for yet must not run."""
    steps = Listed([ids("a"), ids("b")])
    got = Stream(steps, TEXT, Stats(recipe="any"), Ending(max_new_tokens=9))
    assert next(got) == "a" and got.token_ids == ids("a") and steps.advance() == ids("b")


def test_a_stop_string_counts_as_tokens() -> None:
    got = stream(ids("no. yes"), stop=(".",))
    assert "".join(got) == "no"
    assert got.token_ids == ids("no.") and got.stats.new_tokens == 3


@pytest.mark.parametrize("size", [1, 3, 9])
def test_the_end_of_sequence_is_a_token_without_text(size: int) -> None:
    got = stream([*ids("ab"), EOS, *ids("cd")], size=size)
    assert "".join(got) == "ab"
    assert (got.finish_reason, got.token_ids, got.stats.new_tokens) == ("eos", [*ids("ab"), EOS], 3)


@pytest.mark.parametrize("size", [1, 3, 9])
def test_the_limit_counts_tokens_even_within_a_step(size: int) -> None:
    got = stream(ids("abcdefgh"), size=size, limit=4)
    assert "".join(got) == "abcd"
    assert (got.finish_reason, got.token_ids, got.stats.new_tokens) == ("length", ids("abcd"), 4)


def test_a_half_stop_string_at_the_end_is_text() -> None:
    assert "".join(stream(ids("ab<en"), stop=("<end>",))) == "ab<en"


def test_a_stream_is_its_own_iterator() -> None:
    got = stream(ids("ab"))
    assert next(got) == "a" and list(got) == ["b"]


def test_the_rest_is_what_was_not_taken_yet_and_all_tokens() -> None:
    got = stream(ids("abc"), limit=3)
    assert next(got) == "a"
    assert got.rest() == Generation(text="bc", token_ids=ids("abc"), finish_reason="length", stats=got.stats)


def test_answers_and_endings_take_keywords_and_cannot_change() -> None:
    ending, answer = Ending(max_new_tokens=1), stream(ids("a")).rest()
    positional: tuple[Any, ...] = (1, (), ())
    with pytest.raises(TypeError):
        Ending(*positional)  # type: ignore[call-arg]
    with pytest.raises(TypeError):
        Generation(*(*positional, answer.stats))  # type: ignore[call-arg]
    for value, name in ((ending, "max_new_tokens"), (answer, "text")):
        with pytest.raises(FrozenInstanceError):
            setattr(value, name, None)


def test_an_ending_that_leaves_no_token_is_refused() -> None:
    with pytest.raises(PromptError, match="max_new_tokens is 0; give 1 or more"):
        Ending(max_new_tokens=0)
    with pytest.raises(PromptError, match="a stop string is empty; leave it out"):
        Ending(max_new_tokens=1, stop=("a", ""))
    with pytest.raises(PromptError, match="stop string 3 is not text; give text, or stop_token_ids"):
        Ending(max_new_tokens=1, stop=(3,))  # type: ignore[arg-type]
    with pytest.raises(PromptError, match="stop token 'a' is not a token id"):
        Ending(max_new_tokens=1, stop_token_ids=("a",))  # type: ignore[arg-type]
    assert Ending(max_new_tokens=1).stop == ()


def test_stop_values_are_none_one_or_several() -> None:
    assert one_or_several(None, str, "stop") == ()
    assert one_or_several("ab", str, "stop") == ("ab",)
    assert one_or_several(["a", "b"], str, "stop") == ("a", "b")
    assert one_or_several(7, int, "stop_token_ids") == (7,)
    with pytest.raises(PromptError, match=r"^stop is 3\.5; give a list$"):
        one_or_several(3.5, str, "stop")


def test_the_limit_of_an_answer_is_an_integer_within_the_context() -> None:
    limits: list[Any] = [3, 30, None, np.int64(3)]
    assert [token_limit(n, 10) for n in limits] == [3, 10, 10, 3]
    for wrong in (2.0, "3", True):
        with pytest.raises(PromptError, match=r"max_new_tokens is .*; give an integer"):
            token_limit(wrong, 10)  # type: ignore[arg-type]


def test_a_piece_that_a_coroutine_no_longer_waits_for_is_not_lost() -> None:
    class Slow(Listed):
        def advance(self) -> list[int]:
            time.sleep(0.05)
            return super().advance()

    async def read() -> str:
        steps = Slow([[token] for token in ids("abc")])
        answer, pieces = Stream(steps, TEXT, Stats(recipe="any"), Ending(max_new_tokens=3)), list[str]()
        while not answer.ended or len(pieces) < 3:
            with contextlib.suppress(asyncio.TimeoutError):
                pieces.append(await asyncio.wait_for(anext(answer), 0.01))
        return "".join(pieces)

    assert asyncio.run(asyncio.wait_for(read(), 30)) == "abc"


@pytest.mark.parametrize("values", [np.array(1), b"x"])
def test_stop_values_without_items_are_refused(values: Any) -> None:
    with pytest.raises(PromptError, match=r"stop_token_ids is .*; give a list"):
        one_or_several(values, int, "stop_token_ids")


def test_an_array_is_no_limit_of_an_answer() -> None:
    with pytest.raises(PromptError, match=r"max_new_tokens is .*; give an integer"):
        token_limit(np.array([1, 2]), 10)  # type: ignore[arg-type]
