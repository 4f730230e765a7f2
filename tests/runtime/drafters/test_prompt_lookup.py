"""Prompt lookup against the rule written out."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specc.runtime.drafters.prompt_lookup import PromptLookup
from specc.runtime.drafters.recycled_lookup import RecycledLookup
from specc.runtime.sequence import Cache, Sequence

steps = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=5), min_size=1, max_size=6)


def looked_up(text: list[int], ends: range, count: int, longest: int) -> list[int]:
    """What followed the longest n-gram at the end of `text` where it last ended, at one of `ends`; less after a short
    one. What is copied belongs to the text."""
    for size in range(min(longest, len(text)), 0, -1):
        for end in reversed(ends):
            if end >= size and text[end - size : end] == text[-size:]:
                grown = list(text)
                for i in range(max(1, count // (1 + longest - size))):
                    grown.append(grown[end + i])
                return grown[len(text) :]
    return []


@given(st.lists(steps, max_size=3), st.integers(1, 4), st.integers(1, 3))
def test_it_proposes_what_followed_the_longest_match_at_its_latest_place(conversations, count, longest):
    """One drafter for several texts, each grown by some tokens a step."""
    drafter = PromptLookup(count, longest)
    for steps in conversations:
        tokens: list[int] = []
        for new in steps:
            tokens = tokens + new
            draft = drafter.propose(Sequence(tokens, Cache(None, tokens[:-1])))
            assert list(draft.tokens) == [tokens[-1], *looked_up(tokens, range(1, len(tokens)), count, longest)]
            assert draft.tree.is_chain


@given(st.lists(st.integers(0, 2), min_size=1, max_size=12), st.lists(st.integers(0, 2), min_size=1, max_size=3))
def test_with_tokens_drafted_it_looks_for_what_followed_them_together(tokens, drafted):
    expected = looked_up([*tokens, *drafted], range(1, len(tokens) + 1), 4, 3)
    assert PromptLookup(4, 3).after(tokens, drafted) == expected


def test_what_repeats_is_drafted_to_full_length():
    assert PromptLookup(7, 3).after([5, 1, 2, 1, 2, 1]) == [2, 1, 2, 1, 2, 1, 2]


@pytest.mark.parametrize("drafter", [PromptLookup(7, 3), RecycledLookup(7, 3)])
def test_no_more_is_drafted_than_is_asked_for(drafter):
    text = [5, 1, 2, 1, 2, 1]
    for more, drafted in ((0, 0), (1, 0), (2, 1), (5, 4), (9, 7)):
        assert drafter.propose(Sequence(text, Cache(None, text[:-1]), limit=len(text) + more)).tree.slots == 1 + drafted
