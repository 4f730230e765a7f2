"""Stop strings in a text that grows, beside a search of the whole text."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specc.runtime.errors import PromptError
from specc.runtime.stop_strings import MOST_CHARACTERS, MOST_STRINGS, StopStrings, check_stop_strings

WORDS = st.text(st.sampled_from("ab"), min_size=1, max_size=6)


def overlap(text: str, strings: list[str]) -> int:
    """Return the longest end of a text that is the beginning of a string, by trying all."""
    return max(n for string in strings for n in range(len(string)) if text.endswith(string[:n]))


@given(st.lists(WORDS, min_size=1, max_size=4), st.lists(st.text(st.sampled_from("abc"), max_size=4), max_size=12))
def test_each_piece_has_the_overlap_and_the_end_that_a_search_of_the_whole_text_finds(
    strings: list[str], pieces: list[str]
) -> None:
    stops, text = StopStrings(strings), ""
    for piece in pieces:
        text += piece
        ended = stops.add(piece)
        assert ended == any(string in text for string in strings)
        if ended:
            starts = [i for i in range(len(text)) if text.startswith(tuple(strings), i)]
            start, string = stops.first(text)
            assert start == starts[0] and text.startswith(string, start) and string in strings
            return
        assert stops.overlap == overlap(text, strings)


def test_of_several_that_begin_at_one_place_the_shortest_is_first() -> None:
    stops = StopStrings(["abc", "ab"])
    assert stops.add("xabc") and stops.first("xabc") == (1, "ab")


def test_a_token_costs_no_more_beside_long_stop_strings_or_many() -> None:
    """Whoever compares each beginning of each string takes minutes here. The text begins like the strings."""
    many = [f"{i:04}" * 25 for i in range(MOST_STRINGS)]
    for strings, piece in ((["x" * MOST_CHARACTERS], "x"), (["x" * (MOST_CHARACTERS - 1) + "y"], "x"), (many, "001")):
        began = time.process_time()
        stops = StopStrings(strings)
        assert not any(stops.add(piece) for _ in range(300))
        assert time.process_time() - began < 5


def test_stop_strings_that_are_too_many_or_too_long_are_refused() -> None:
    check_stop_strings(["x" * (MOST_CHARACTERS // MOST_STRINGS)] * MOST_STRINGS)
    with pytest.raises(PromptError, match="there are 1001 stop strings; give at most 1000"):
        check_stop_strings(["x"] * (MOST_STRINGS + 1))
    with pytest.raises(PromptError, match="the stop strings have 100001 characters; give at most 100000 in all"):
        check_stop_strings(["x" * MOST_CHARACTERS, "y"])
