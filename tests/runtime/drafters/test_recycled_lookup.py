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
    """A text that grows by steps of a drafter, and what was answered after each n-gram, in order."""

    def __init__(self, drafter: RecycledLookup, tokens: list[int]) -> None:
        self.drafter, self.longest = drafter, drafter.longest
        self.seq = Sequence(tokens, Cache(None, tokens[:-1]))
        self.answers: dict[tuple[int, ...], list[int]] = {}

    def step(self, answers: list[int]) -> list[int]:
        """Draft, verify with these answers, keep what agrees; return what was drafted."""
        draft = self.drafter.propose(self.seq)
        answers = answers[: draft.tree.slots]
        kept = next((i for i, a in enumerate(answers) if draft.tokens[i + 1 : i + 2] != (a,)), len(answers) - 1)
        text = [*self.seq.tokens[:-1], *draft.tokens]
        for slot, answer in enumerate(answers):
            end = len(self.seq.tokens) + slot
            for size in range(1, min(self.longest, end) + 1):
                self.answers.setdefault(tuple(text[end - size : end]), []).append(answer)
        self.seq.tokens += answers[: kept + 1]
        verified = Verified(Outputs(memoryview(np.array(answers, np.int64))), Sampling())
        self.drafter.observe(self.seq, draft, verified, Accepted(tuple(range(kept + 1)), answers[kept]))
        return list(draft.tokens[1:])

    def expected(self, repeats: int) -> list[int]:
        """What the next draft must be."""
        tokens = PromptLookup(self.drafter.count, self.longest).after(list(self.seq.tokens))
        while len(tokens) < self.drafter.count:
            text = [*self.seq.tokens, *tokens]
            ngrams = [tuple(text[-size:]) for size in range(min(self.longest, len(text)), 0, -1)]
            known = next((self.answers[n][-repeats:] for n in ngrams if n in self.answers), [])
            if len(known) < repeats or len(set(known)) > 1:
                break
            tokens.append(known[-1])
        return tokens


@given(
    st.lists(token, min_size=1, max_size=6), st.lists(st.lists(token, min_size=6, max_size=6), max_size=12),
    st.integers(1, 5), st.integers(1, 3), st.integers(1, 3),
)  # fmt: skip
def test_a_copy_goes_on_with_answers_that_came_again(tokens, steps, count, longest, repeats):
    run = Run(RecycledLookup(count, longest, repeats), tokens)
    for answers in steps:
        expected = run.expected(repeats)
        assert run.step(answers) == expected


def test_answers_to_slots_that_were_not_kept_are_recycled():
    run = Run(RecycledLookup(4, 1, 1), [1, 5, 9, 1])
    assert run.step([7, 8, 6, 0, 0]) == [5, 9, 1]  # 5 is refused, but what follows it, and 9, has been answered
    run.seq.tokens += [5]
    assert run.drafter.propose(run.seq).tokens[1] == 9  # the text knows better
    run.seq.tokens[:] = [5]
    assert run.drafter.propose(run.seq).tokens == (5, 8)


def test_a_table_that_grew_too_large_is_forgotten(monkeypatch):
    monkeypatch.setattr(recycled_lookup, "MOST", 3)
    run = Run(RecycledLookup(), [1])
    for answer in (2, 3, 4, 5, 6):
        run.step([answer])
    assert len(run.drafter.answers) <= 3 + run.longest


def test_a_draft_of_a_text_of_one_token_starts_with_it():
    assert RecycledLookup().propose(Sequence([4], Cache(None, []))) == Draft.chain([4])
