"""CopySpec against the rule written out, and its honest test."""

from __future__ import annotations

from collections.abc import Callable

from host_time import measure_least
from hypothesis import given
from hypothesis import strategies as st
from toys import Circle, ToyKV, World, propose

from specc.runtime.drafters.copy_spec import CopySpec
from specc.runtime.sequence import Cache, Sequence


def copied(text: list[int], gamma: int, count: int) -> list[int]:
    """Return what followed the last `gamma` tokens of `text` where they first occur, or nothing."""
    for end in range(gamma, len(text)):
        if text[end - gamma : end] == text[-gamma:]:
            return text[end : end + count]
    return []


@given(st.lists(st.lists(st.integers(0, 1), min_size=1, max_size=5), min_size=1, max_size=6), st.integers(1, 4))
def test_it_copies_what_followed_the_first_place_of_the_last_tokens(steps: list[list[int]], gamma: int) -> None:
    seq = Sequence([], {"target": Cache(ToyKV())})
    drafting, tokens = CopySpec(gamma, 4).open(seq), seq.tokens
    for new in steps:
        tokens += new
        seq.cache.tokens[:] = tokens[:-1]
        draft = propose(drafting)
        assert list(draft.tokens) == [tokens[-1], *copied(tokens, gamma, 4)] and draft.tree.is_chain


def test_fewer_matching_tokens_are_no_match() -> None:
    text = [7, 1, 2, 3, 4, 9, 1, 2, 3, 4]
    seq = Sequence(text, {"target": Cache(ToyKV(), text[:-1])})
    assert propose(CopySpec(4).open(seq)).tokens == (4, 9, 1, 2, 3, 4)
    assert propose(CopySpec(5).open(seq)).tokens == (4,)


def test_no_more_is_copied_than_is_worth_drafting() -> None:
    text = [1, 2, 3, 4, 1, 2]
    seq = Sequence(text, {"target": Cache(ToyKV(), text[:-1])}, limit=len(text) + 2)
    assert propose(CopySpec(2).open(seq)).tokens == (2, 3)


def test_copyspec_takes_more_than_four_tokens_a_step_where_the_text_is_repeated() -> None:
    """The honest test of methods.md, on a toy model whose text runs in a circle."""
    world = World(runner=Circle)
    tokens, accepted = world.method("copyspec").run([3, 1], 200)
    steps = len(tokens) - accepted
    assert len(tokens) / steps > 4


def test_where_nothing_repeats_a_draft_costs_less_than_three_percent_of_a_verify_step() -> None:
    """The step is the 10 ms that the demo model takes on one core; the text has 4000 tokens and no repetition."""

    def prepare() -> Callable[[], None]:
        text = list(range(4000))
        seq = Sequence(text, {"target": Cache(ToyKV(), text[:-1])})
        drafting = CopySpec().open(seq)
        drafting.draft(10)  # It indexes the prompt.

        def work() -> None:
            for token in range(4000, 4400):
                seq.cache.tokens.append(text[-1])
                text.append(token)
                assert drafting.draft(10).tokens == (token,)

        return work

    assert measure_least(prepare) / 400 < 0.03 * 0.010
