"""Cache and sequence against a model that is nothing but a list of tokens."""

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from specc.runtime.sequence import Cache, Sequence

tokens = st.lists(st.integers(0, 2), max_size=6)


class Shelf:
    """Rows that are the tokens which made them."""

    capacity = 1000

    def __init__(self) -> None:
        self.rows = [-1] * self.capacity

    def run(self, start: int, tokens: list[int]) -> None:
        self.rows[start : start + len(tokens)] = tokens

    def move(self, start: int, rows: list[int]) -> None:
        assert rows == sorted(rows)
        self.rows[start : start + len(rows)] = [self.rows[r] for r in rows]


class CacheMachine(RuleBasedStateMachine):
    """Whatever is run, kept, scribbled and synced, each committed row lies under its token."""

    def __init__(self) -> None:
        super().__init__()
        self.shelf = Shelf()
        self.cache = Cache(self.shelf)
        self.model: list[int] = []

    @rule(tokens=tokens, kept=st.sets(st.integers(0, 5)))
    def run_and_keep(self, tokens, kept):
        slots = sorted(s for s in kept if s < len(tokens))
        self.shelf.run(len(self.cache), tokens)
        self.cache.commit([tokens[s] for s in slots], slots)
        self.model += [tokens[s] for s in slots]

    @rule(held=st.integers(0, 40), more=tokens)
    def sync(self, held, more):
        wanted = self.model[:held] + more
        common = 0
        while self.model[common : common + 1] == wanted[common : common + 1] != []:
            common += 1
        assert self.cache.sync(wanted) == wanted[common:]
        self.model = wanted[:common]

    @rule(tokens=tokens)
    def scribble_past_the_end(self, tokens):
        self.shelf.run(len(self.cache), tokens)

    @invariant()
    def rows_lie_under_their_tokens(self):
        assert self.cache.tokens == self.model == self.shelf.rows[: len(self.cache)]


TestCache = CacheMachine.TestCase
TestCache.settings = settings(max_examples=50, stateful_step_count=25)


def test_the_last_token_is_pending_and_has_no_row():
    cache = Cache(Shelf(), [1, 2])
    assert Sequence([1, 2, 3], cache).pending == 3
    assert [Sequence([1, 2, 3], cache, limit=n).room for n in (3, 4, 5, 9)] == [0, 0, 1, 5]
    with pytest.raises(AssertionError):
        _ = Sequence([1, 2], cache).pending
