"""Prompt lookup against the rule written out."""

from hypothesis import given
from hypothesis import strategies as st

from specc.runtime.drafters.prompt_lookup import PromptLookup
from specc.runtime.sequence import Cache, Sequence

steps = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=5), min_size=1, max_size=6)


def looked_up(tokens: list[int], count: int, longest: int) -> list[int]:
    """What followed the longest n-gram at the end of `tokens` where it was last seen before; less after a short one."""
    for size in range(min(longest, len(tokens) - 1), 0, -1):
        for end in range(len(tokens) - 1, size - 1, -1):
            if tokens[end - size : end] == tokens[-size:]:
                return tokens[end : end + max(1, count * size // longest)]
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
            assert list(draft.tokens) == [tokens[-1], *looked_up(tokens, count, longest)]
            assert draft.tree.is_chain


@given(st.lists(st.integers(0, 2), min_size=1, max_size=12), st.lists(st.integers(0, 2), min_size=1, max_size=3))
def test_with_tokens_drafted_it_looks_for_what_followed_them_together(tokens, drafted):
    known = PromptLookup(4, 3).after(tokens, drafted)
    together = [*tokens, *drafted]
    ends = [
        (size, end) for size in range(min(3, len(together)), 0, -1) for end in range(len(tokens), size - 1, -1)
        if tokens[end - size : end] == together[-size:]
    ]  # fmt: skip
    size, end = ends[0] if ends else (0, len(tokens))
    assert known == tokens[end : end + max(1, 4 * size // 3)]
