"""Cache and sequence against a model that is nothing but a list of tokens."""

from __future__ import annotations

from collections.abc import Sequence as Tokens
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from specc.runtime.draft import Accepted, Draft, Outputs
from specc.runtime.sequence import (
    Cache,
    Caches,
    KVStore,
    Released,
    RowsOfLastRunner,
    Sequence,
    common_prefix,
    displaced,
)
from specc.runtime.tree import Tree

tokens = st.lists(st.integers(0, 2), max_size=6)


class Shelf:
    """A store whose rows are the tokens that they belong to. It counts the moves."""

    uncommitted = 0

    def __init__(self) -> None:
        self.capacity, self.moves = 1000, 0
        self.rows = [-1] * self.capacity

    def run(self, start: int, tokens: Tokens[int]) -> None:
        """Write the rows of these tokens from `start` on."""
        self.rows[start : start + len(tokens)] = tokens

    def commit(self, start: int, slots: Tokens[int]) -> None:
        assert list(slots) == sorted(slots)
        if displaced(slots):
            self.rows[start : start + len(slots)] = [self.rows[start + slot] for slot in slots]
            self.moves += 1

    def rewind(self, rows: int) -> int:
        return rows

    def copy(self, source: KVStore, rows: int) -> int:
        if not isinstance(source, Shelf):
            return 0
        self.rows[:rows] = source.rows[:rows]
        return rows


class CacheMachine(RuleBasedStateMachine):
    """A cache of which, whatever runs, commits, scribbles and syncs, each committed row lies under its token."""

    def __init__(self) -> None:
        super().__init__()
        self.shelf, self.other = Shelf(), Cache(Shelf())
        self.cache = Cache(self.shelf)
        self.model: list[int] = []

    @rule(tokens=tokens, choice=st.sets(st.integers(0, 5)))
    def run_and_commit(self, tokens: list[int], choice: set[int]) -> None:
        slots = sorted(s for s in choice if s < len(tokens))
        self.shelf.run(len(self.cache), tokens)
        self.cache.commit(tokens, slots)
        self.model += [tokens[s] for s in slots]

    @rule(length=st.integers(0, 40), more=tokens)
    def sync(self, length: int, more: list[int]) -> None:
        text = self.model[:length] + more
        common = 0
        while self.model[common : common + 1] == text[common : common + 1] != []:
            common += 1
        assert self.cache.sync(text) == text[common:]
        self.model = text[:common]

    @rule(tokens=tokens, share=st.floats(0, 1))
    def copy_rows(self, tokens: list[int], share: float) -> None:
        """From another cache, of which a part is copied; without rows, nothing changes."""
        shelf = self.other.store
        assert isinstance(shelf, Shelf)
        shelf.run(len(self.other), tokens)
        self.other.commit(tokens, range(len(tokens)))
        rows = int(share * len(self.other))
        assert self.cache.copy(self.other, rows) == rows
        self.model = self.other.tokens[:rows] or self.model

    @rule(tokens=tokens)
    def scribble_past_the_end(self, tokens: list[int]) -> None:
        self.shelf.run(len(self.cache), tokens)

    @invariant()
    def rows_lie_under_their_tokens(self) -> None:
        assert self.cache.tokens == self.model == self.shelf.rows[: len(self.cache)]


TestCache = CacheMachine.TestCase
TestCache.settings = settings(max_examples=settings().max_examples // 2, stateful_step_count=25)


def states_of(*numbers: float) -> Outputs:
    return Outputs(np.zeros(len(numbers), np.int64).data, states={"eagle3": np.array(numbers, np.float32)[:, None]})


def test_the_rows_of_a_run_that_dropped_slots_are_those_of_the_slots_that_it_kept() -> None:
    """The rows lie where the whole tree's do. The tokens are those of what was kept."""
    shelf = Shelf()
    cache = Cache(shelf, [])
    shelf.run(0, [7, 8, 9, 10, 11])
    outputs = Outputs(np.zeros(3, np.int64).data, kept_slots=np.array([0, 2, 4]))
    cache.commit([7, 9, 11], (0, 2), outputs)
    assert cache.tokens == [7, 11] == shelf.rows[:2]


def test_states_are_kept_with_the_rows_that_are_committed() -> None:
    cache = Cache(shelf := Shelf())
    shelf.run(0, [5, 6, 7])
    cache.commit([5, 6, 7], [0, 2], states_of(0.5, 0.6, 0.7))
    shelf.run(2, [8, 9])
    cache.commit([8, 9], [1], states_of(0.8, 0.9))
    assert cache.states["eagle3"][:3, 0].tolist() == pytest.approx([0.5, 0.7, 0.9])
    assert cache.states["eagle3"].shape == (shelf.capacity, 1)


def test_rows_that_are_dropped_and_computed_again_have_the_new_states() -> None:
    cache = Cache(shelf := Shelf())
    shelf.run(0, [5, 6])
    cache.commit([5, 6], [0, 1], states_of(0.5, 0.6))
    assert cache.sync([5, 7]) == [7]
    shelf.run(1, [7])
    cache.commit([7], [0], states_of(0.7))
    assert cache.states["eagle3"][:2, 0].tolist() == pytest.approx([0.5, 0.7])


def test_rows_that_are_copied_take_their_states_along() -> None:
    source, cache = Cache(shelf := Shelf()), Cache(Shelf())
    shelf.run(0, [5, 6])
    source.commit([5, 6], [0, 1], states_of(0.5, 0.6))
    assert cache.copy(source, 1) == 1
    assert cache.states["eagle3"][:2, 0].tolist() == pytest.approx([0.5, 0.0])


def test_rows_of_a_run_without_states_do_not_keep_those_of_another_text() -> None:
    """The deep half of the target returns none, and a head must not depend on what was decoded before."""
    cache = Cache(shelf := Shelf())
    shelf.run(0, [5, 6])
    cache.commit([5, 6], [0, 1], states_of(0.5, 0.6))
    cache.sync([5])
    assert cache.sync([5, 7]) == [7]
    shelf.run(1, [7])
    cache.commit([7], [0], Outputs(np.zeros(1, np.int64).data))
    assert cache.states["eagle3"][:2, 0].tolist() == pytest.approx([0.5, 0.0])


def test_a_cache_of_a_bundle_without_heads_keeps_no_states() -> None:
    cache = Cache(shelf := Shelf())
    shelf.run(0, [5])
    cache.commit([5], [0], Outputs(np.zeros(1, np.int64).data))
    assert cache.states == {}


@pytest.mark.parametrize(("slots", "moves"), [([], 0), ([0], 0), ([0, 1, 2], 0), ([1], 1), ([0, 2], 1)])
def test_first_slots_are_where_they_belong_and_are_not_moved(slots: list[int], moves: int) -> None:
    cache = Cache(shelf := Shelf(), [9])
    shelf.run(1, [5, 6, 7])
    cache.commit([5, 6, 7], slots)
    assert shelf.moves == moves
    assert shelf.rows[1 : len(cache)] == [5 + slot for slot in slots]


def test_the_last_token_is_pending_and_has_no_row() -> None:
    cache = Cache(Shelf(), [1, 2])
    assert Sequence([1, 2, 3], {"target": cache}).pending == 3
    assert [Sequence([1, 2, 3], {"target": cache}, limit=n).room for n in (3, 4, 5, 9)] == [0, 0, 1, 5]
    with pytest.raises(AssertionError):
        _ = Sequence([1, 2], {"target": cache}).pending


def test_a_step_appends_the_accepted_tokens_with_their_rows_and_the_targets_own_token() -> None:
    """Slots 0, 2 and 4 of a tree below the text 1 2 3; 3 is pending and gets its row now."""
    cache = Cache(shelf := Shelf(), [1, 2])
    shelf.run(0, [1, 2])
    seq, draft = Sequence([1, 2, 3], {"target": cache}), Draft((3, 40, 41, 42, 43), Tree((-1, 0, 0, 1, 2)))
    shelf.run(2, draft.tokens)
    seq.append(draft, Accepted((0, 2, 4), 50))
    assert seq.tokens == [1, 2, 3, 41, 43, 50] and seq.pending == 50
    assert cache.tokens == shelf.rows[:5] == [1, 2, 3, 41, 43]


class Snapshots(Shelf):
    """A store that can go back only to every fourth row, as one with a running state would."""

    uncommitted = 0

    def rewind(self, rows: int) -> int:
        return rows - rows % 4


def test_a_store_that_cannot_drop_rows_from_any_place_on_loses_more_of_them() -> None:
    cache = Cache(shelf := Snapshots(), [1, 2, 3, 4, 5, 6, 7])
    shelf.run(0, cache.tokens)
    assert cache.sync([1, 2, 3, 4, 5, 6, 9, 9]) == [5, 6, 9, 9]
    assert cache.tokens == [1, 2, 3, 4]
    assert cache.sync([1, 2, 3, 4, 5]) == [5]


def test_a_cache_is_made_when_its_name_is_first_asked_for() -> None:
    names: list[str] = []

    def make(name: str) -> Shelf:
        names.append(name)
        return Shelf()

    caches = Caches(make)
    assert not names
    seq = Sequence([1], caches)
    assert seq.cache is caches["target"] and caches["draft"] is caches["draft"] is not seq.cache
    assert names == ["target", "draft"]


@pytest.mark.parametrize(
    ("tokens", "others", "shared"),
    [([], [], 0), ([1], [], 0), ([1, 2], [1, 2, 3], 2), ([1, 2, 3], [1, 2], 2), ([1, 2], [1, 3], 1), ([4], [5], 0)],
)
def test_a_common_prefix_ends_at_the_first_difference(tokens: list[int], others: list[int], shared: int) -> None:
    assert common_prefix(tokens, others) == shared


def test_a_store_that_cannot_copy_leaves_the_cache_as_it_was() -> None:
    cache, source = Cache(Shelf(), [1, 2]), Cache(Released(), [3, 4, 5])
    assert cache.copy(source, 3) == source.copy(cache, 2) == 0
    assert cache.tokens == [1, 2] and source.tokens == [3, 4, 5]


class Runner:
    """A runner that notes the rows which it moves."""

    def __init__(self) -> None:
        self.moves: list[tuple[int, Tokens[int]]] = []

    def commit(self, start: int, slots: Tokens[int]) -> None:
        self.moves.append((start, slots))


def test_rows_on_a_device_are_moved_by_the_runner_that_ran_last() -> None:
    rows, first, second = RowsOfLastRunner(), Runner(), Runner()
    rows.commit(0, [0, 1])  # They lie where they belong, so no runner is needed.
    with pytest.raises(AssertionError, match="no engine ran before rows were moved"):
        rows.commit(0, [1])
    rows.last = first
    rows.last = second
    rows.commit(7, [0, 2])
    assert (first.moves, second.moves) == ([], [(7, [0, 2])])


def test_the_store_of_a_closed_model_has_no_rows() -> None:
    released = Released()
    released.commit(0, [1])
    assert released.capacity == released.rewind(0) == released.rewind(5) == 0


def test_processors_see_the_targets_outputs_and_the_draft() -> None:
    class Echo:
        def of(self, outputs: object, draft: object) -> object:
            return outputs, draft

    outputs: Any = object()
    draft, processing = Draft.chain([0, 1]), Echo()
    caches = Caches(lambda name: Shelf())
    plain, request = Sequence([0, 1], caches), Sequence([0, 1], caches)
    request.processing = processing  # type: ignore[assignment]
    assert plain.verified(outputs, draft).processed is None
    processed: Any = request.verified(outputs, draft).processed
    assert processed == (outputs, draft)


def test_rows_beside_the_targets_never_move_nor_drop_those() -> None:
    """A draft layer's rows stand in the target's store. They are counted alone, and copied by no one."""
    shelf, other = Shelf(), Shelf()
    caches, others = Caches(lambda name: shelf), Caches(lambda name: other)
    target, draft = caches["target"], caches["draft"]
    assert draft.is_beside and draft.target is target and not target.is_beside
    shelf.run(0, [1, 2, 3])
    target.commit([1, 2, 3], range(3))
    draft.commit([1, 2, 3, 4], range(4))
    draft.sync([1, 2])
    assert (target.tokens, draft.tokens, shelf.moves, shelf.rows[:3]) == ([1, 2, 3], [1, 2], 0, [1, 2, 3])
    assert others["draft"].copy(draft, 2) == 0
    others["draft"].commit([1, 2], range(2))
    others.copy_rows("target", target, 3)
    assert (others["target"].tokens, others["draft"].tokens) == ([1, 2, 3], [])  # The copy replaced the whole store.


def test_rows_of_a_store_of_their_own_are_not_beside() -> None:
    caches = Caches(lambda name: Shelf())
    assert not caches["draft"].is_beside and caches["draft"].target is caches["target"]
