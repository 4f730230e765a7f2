"""Recycled lookup against its table written out."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from specc.runtime.draft import Accepted, Draft, Outputs, Verified
from specc.runtime.drafters import recycled_lookup
from specc.runtime.drafters.prompt_lookup import PromptLookup
from specc.runtime.drafters.recycled_lookup import RecycledLookup
from specc.runtime.sampling import Sampling
from specc.runtime.sequence import Cache, Sequence

token = st.integers(0, 2)


class Run:
    """A text that grows by steps of a drafter, and what was last answered after each n-gram."""

    def __init__(self, drafter: RecycledLookup, tokens: list[int]) -> None:
        self.drafter, self.longest = drafter, drafter.longest
        self.seq = Sequence(tokens, Cache(None, tokens[:-1]))
        self.answers: dict[tuple[int, ...], int] = {}

    def say(self, tokens: list[int]) -> None:
        """The text grows, and the rows of all its tokens but the last are there."""
        self.seq.tokens += tokens
        self.seq.cache.tokens[:] = self.seq.tokens[:-1]

    def step(self, answers: list[int]) -> list[int]:
        """Draft, verify with these answers, keep what agrees; return what was drafted."""
        draft = self.drafter.propose(self.seq)
        answers = answers[: draft.tree.slots]
        kept = next((i for i, a in enumerate(answers) if draft.tokens[i + 1 : i + 2] != (a,)), len(answers) - 1)
        text = [*self.seq.tokens[:-1], *draft.tokens]
        for slot, answer in enumerate(answers):
            end = len(self.seq.tokens) + slot
            if end >= self.longest:
                self.answers[tuple(text[end - self.longest : end])] = answer
        self.say(answers[: kept + 1])
        verified = Verified(Outputs(memoryview(np.array(answers, np.int64))), Sampling())
        self.drafter.observe(self.seq, draft, verified, Accepted(tuple(range(kept + 1)), answers[kept]))
        return list(draft.tokens[1:])

    def expected(self) -> list[int]:
        """What the next draft must be."""
        tokens = PromptLookup(self.drafter.count, self.longest).after(list(self.seq.tokens))
        while len(tokens) < self.drafter.count:
            ngram = tuple([*self.seq.tokens, *tokens][-self.longest :])
            if ngram not in self.answers:
                break
            tokens.append(self.answers[ngram])
        return tokens


@given(
    st.lists(token, min_size=1, max_size=6), st.lists(st.lists(token, min_size=6, max_size=6), max_size=12),
    st.integers(1, 5), st.integers(1, 3),
)  # fmt: skip
def test_a_copy_goes_on_with_the_last_answers(tokens, steps, count, longest):
    run = Run(RecycledLookup(count, longest), tokens)
    for answers in steps:
        expected = run.expected()
        assert run.step(answers) == expected


def test_answers_to_slots_that_were_not_kept_are_recycled():
    run = Run(RecycledLookup(3, 1), [1, 5, 9, 1])
    assert run.step([7, 8, 6, 0, 0]) == [5, 9, 1]  # 5 is refused, but what follows it, and 9, has been answered
    run.say([5])
    assert run.drafter.propose(run.seq).tokens[1] == 9  # the text knows better
    run.seq.tokens.clear()
    run.say([5])
    assert run.drafter.propose(run.seq).tokens == (5, 8)


def test_a_table_that_grew_too_large_is_forgotten(monkeypatch):
    monkeypatch.setattr(recycled_lookup, "MOST", 3)
    run = Run(RecycledLookup(), [1])
    for answer in (2, 3, 4, 5, 6):
        run.step([answer])
    assert len(run.drafter.answers) <= 4


def test_a_draft_of_a_text_of_one_token_starts_with_it():
    assert RecycledLookup().propose(Sequence([4], Cache(None, []))) == Draft.chain([4])
