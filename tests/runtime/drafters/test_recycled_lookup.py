"""Recycled lookup against its table written out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import ToyKV, propose

from specc.runtime.draft import Accepted, Draft, Outputs, Verified
from specc.runtime.drafters import recycled_lookup
from specc.runtime.drafters.prompt_lookup import NgramIndex
from specc.runtime.drafters.recycled_lookup import RecycledLookup
from specc.runtime.sampling import Sampling
from specc.runtime.sequence import Cache, Sequence

token = st.integers(0, 2)


class Run:
    """A text that grows by steps of a drafter, with what was last answered after each n-gram."""

    def __init__(self, drafter: RecycledLookup, tokens: list[int]) -> None:
        self.drafter, self.longest = drafter, drafter.longest
        self.seq = Sequence(tokens, {"target": Cache(ToyKV(), tokens[:-1])})
        self.drafting = drafter.open(self.seq)
        self.answers: dict[tuple[int, ...], int] = {}

    def say(self, tokens: list[int]) -> None:
        """Let the text grow. All its tokens but the last one get rows."""
        self.seq.tokens += tokens
        self.seq.cache.tokens[:] = self.seq.tokens[:-1]

    def step(self, answers: list[int]) -> list[int]:
        """Draft, verify with these answers, commit what agrees; return what was drafted."""
        draft = propose(self.drafting)
        answers = answers[: draft.tree.slots]
        hits = next((i for i, a in enumerate(answers) if draft.tokens[i + 1 : i + 2] != (a,)), len(answers) - 1)
        text = [*self.seq.tokens[:-1], *draft.tokens]
        for slot, answer in enumerate(answers):
            end = len(self.seq.tokens) + slot
            if end >= self.longest:
                self.answers[tuple(text[end - self.longest : end])] = answer
        self.say(answers[: hits + 1])
        verified = Verified(Outputs(np.array(answers, np.int64).data), Sampling())
        self.drafting.observe(draft, verified, Accepted(tuple(range(hits + 1)), answers[hits]))
        return list(draft.tokens[1:])

    def expected(self) -> list[int]:
        """Return what the next draft must be."""
        tokens = NgramIndex(list(self.seq.tokens), self.longest).after(self.drafter.count)
        while len(tokens) < self.drafter.count:
            ngram = tuple([*self.seq.tokens, *tokens][-self.longest :])
            if ngram not in self.answers:
                break
            tokens.append(self.answers[ngram])
        return tokens


@given(
    st.lists(token, min_size=1, max_size=6),
    st.lists(st.lists(token, min_size=6, max_size=6), max_size=12),
    st.integers(1, 5),
    st.integers(1, 3),
)
def test_a_copy_continues_with_the_last_answers(
    tokens: list[int], steps: list[list[int]], count: int, longest: int
) -> None:
    run = Run(RecycledLookup(count, longest), tokens)
    for answers in steps:
        expected = run.expected()
        assert run.step(answers) == expected


def test_answers_to_slots_that_were_not_committed_are_recycled() -> None:
    run = Run(RecycledLookup(3, 1), [1, 5, 9, 1])
    # 5 is rejected, but the tokens after it and after 9 have been answered.
    assert run.step([7, 8, 6, 0, 0]) == [5, 9, 1]
    run.say([5])
    assert propose(run.drafting).tokens[1] == 9  # A copy from the text comes first.
    other = Run(run.drafter, [5])
    assert propose(other.drafting).tokens == (5, 8)


def test_a_table_that_grew_too_large_is_cleared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recycled_lookup, "MAX_ANSWERS", 3)
    run = Run(RecycledLookup(), [1])
    for answer in (2, 3, 4, 5, 6):
        run.step([answer])
    assert len(run.drafter.answers) <= 4


def test_a_draft_of_a_text_of_one_token_starts_with_it() -> None:
    assert propose(RecycledLookup().open(Sequence([4], {"target": Cache(ToyKV(), [])}))) == Draft.chain([4])


def test_no_more_is_drafted_than_is_asked_for() -> None:
    text = [5, 1, 2, 1, 2, 1]
    for more, drafted in ((0, 0), (1, 0), (2, 1), (5, 4), (9, 7)):
        seq = Sequence(text, {"target": Cache(ToyKV(), text[:-1])}, limit=len(text) + more)
        assert propose(RecycledLookup(7, 3).open(seq)).tree.slots == 1 + drafted
