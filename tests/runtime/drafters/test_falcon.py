"""A chain of a head that makes two tokens in one call."""

from __future__ import annotations

import pytest
from toys import World, prompts

from specc.runtime.errors import RecipeError


@pytest.mark.parametrize("depth", [2, 4, 6])
def test_a_draft_takes_half_as_many_calls_as_it_has_tokens(depth: int) -> None:
    """The first two tokens come with the call that runs the accepted ones."""
    decoder = World().method("falcon", num_speculative_tokens=depth)
    drafts = list(decoder.drafts(prompts(1, seed=3)[0] * 2, steps=12))[1:]
    assert {(len(draft.tokens) - 1, calls) for draft, calls in drafts} == {(depth, depth // 2 - 1)}


def test_an_odd_number_of_tokens_is_cut() -> None:
    decoder = World().method("falcon", num_speculative_tokens=3)
    drafts = list(decoder.drafts(prompts(1, seed=3)[0] * 2, steps=6))[1:]
    assert {(len(draft.tokens) - 1, calls) for draft, calls in drafts} == {(3, 1)}


def test_a_text_of_one_token_has_no_draft() -> None:
    (draft, calls), *_ = World().method("falcon").drafts([3], steps=1)
    assert len(draft.tokens) == 1 and calls == 0


def test_a_draft_of_no_tokens_is_refused() -> None:
    with pytest.raises(RecipeError, match="num_speculative_tokens"):
        World().method("falcon", num_speculative_tokens=0)
