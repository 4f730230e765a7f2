"""Prompt lookup against the rule written out."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from toys import ToyKV, propose

from specc.runtime.drafters.prompt_lookup import NgramIndex, PromptLookup
from specc.runtime.sequence import Cache, Sequence

steps = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=5), min_size=1, max_size=6)


def looked_up(text: list[int], ends: range, count: int, longest: int) -> list[int]:
    """Return what followed the longest n-gram at the end of `text` where it last ended; less after a short match.

    Args:
        text: the text. What is copied becomes a part of it.
        ends: where the earlier n-gram may end.
        count: tokens to copy after a match of full length.
        longest: tokens of the longest n-gram.
    """
    for size in range(min(longest, len(text)), 0, -1):
        for end in reversed(ends):
            if end >= size and text[end - size : end] == text[-size:]:
                longer = list(text)
                for i in range(max(1, count // (1 + longest - size))):
                    longer.append(longer[end + i])
                return longer[len(text) :]
    return []


@given(st.lists(steps, max_size=3), st.integers(1, 4), st.integers(1, 3))
def test_it_proposes_what_followed_the_longest_match_at_its_latest_place(
    conversations: list[list[list[int]]], count: int, longest: int
) -> None:
    """One drafter for several texts, each of which grows by some tokens a step."""
    drafter = PromptLookup(count, longest)
    for steps in conversations:
        seq = Sequence([], {"target": Cache(ToyKV())})
        drafting, tokens = drafter.open(seq), seq.tokens
        for new in steps:
            tokens += new
            seq.cache.tokens[:] = tokens[:-1]
            draft = propose(drafting)
            assert list(draft.tokens) == [tokens[-1], *looked_up(tokens, range(1, len(tokens)), count, longest)]
            assert draft.tree.is_chain


@given(st.lists(st.integers(0, 2), min_size=1, max_size=12), st.lists(st.integers(0, 2), min_size=1, max_size=3))
def test_with_tokens_drafted_it_looks_for_what_followed_them_together(tokens: list[int], drafted: list[int]) -> None:
    expected = looked_up([*tokens, *drafted], range(1, len(tokens) + 1), 4, 3)
    assert NgramIndex(tokens, 3).after(4, drafted) == expected


def test_what_repeats_is_drafted_to_full_length() -> None:
    assert NgramIndex([5, 1, 2, 1, 2, 1], 3).after(7) == [2, 1, 2, 1, 2, 1, 2]


def test_no_more_is_drafted_than_is_asked_for() -> None:
    text = [5, 1, 2, 1, 2, 1]
    for more, drafted in ((0, 0), (1, 0), (2, 1), (5, 4), (9, 7)):
        seq = Sequence(text, {"target": Cache(ToyKV(), text[:-1])}, limit=len(text) + more)
        assert propose(PromptLookup(7, 3).open(seq)).tree.slots == 1 + drafted
