"""The guard: drafts go on while they pay, are cut where shorter ones might, stop where they do not, and come back."""

from __future__ import annotations

import time
from dataclasses import FrozenInstanceError, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import ToyKV, propose

from specc.runtime.draft import Accepted, Draft, Outputs, Verified
from specc.runtime.drafters import Drafter, Drafting
from specc.runtime.guard import Guard, GuardedDrafting, GuardPolicy, Level
from specc.runtime.sampling import Sampling
from specc.runtime.sequence import Cache, Sequence
from specc.runtime.tree import Tree

POLICY = GuardPolicy()
VERIFIED = Verified(Outputs(np.zeros(1, np.int64).data), Sampling())


class Chain(Drafter):
    """A drafter of seven tokens, which counts the observations of its draftings."""

    def __init__(self) -> None:
        self.observed = 0

    def open(self, seq: Sequence) -> Drafting[Any]:
        return ChainDrafting(self, seq)


class ChainDrafting(Drafting[Chain]):
    def draft(self, room: int) -> Draft:
        return Draft.chain([self.seq.pending] * 8, {slot: np.array([slot]) for slot in range(7)})

    def observe(self, draft: Draft, verified: Verified, accepted: Accepted) -> None:
        self.drafter.observed += 1


class Star(Chain):
    """A drafter of siblings, in a tree of so many slots."""

    slots = 8

    def open(self, seq: Sequence) -> Drafting[Any]:
        return StarDrafting(self, seq)


class StarDrafting(Drafting[Star]):
    def draft(self, room: int) -> Draft:
        slots = self.drafter.slots
        return Draft((self.seq.pending,) * slots, Tree((-1, *[0] * (slots - 1))))


def guarded(drafter: Drafter, policy: GuardPolicy | None = None) -> GuardedDrafting:
    """Open a request under a guard of its own. The text is the token 5."""
    return Guard(drafter, policy).open(Sequence([5], {"target": Cache(ToyKV())}))


class Clock:
    """A clock by which a plain step takes a second, and one with a draft `cost` seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.cost, self.plain_cost = 0.0, 2.0, 1.0
        monkeypatch.setattr(time, "perf_counter", lambda: self.now)

    def run(self, guard: GuardedDrafting, steps: int, accepted: int) -> list[int]:
        """Take steps in which `accepted` drafted tokens are right; return the slots of each."""
        slots = []
        for _ in range(steps):
            draft = propose(guard)
            slots.append(draft.tree.slots)
            self.now += self.cost if draft.tree.slots > 1 else self.plain_cost
            hits = min(accepted, draft.tree.slots - 1)
            guard.observe(draft, VERIFIED, Accepted(tuple(range(hits + 1)), 0))
        return slots


def level(guard: GuardedDrafting) -> Level:
    """Return the present level. A type checker would take the attribute for what it was when last compared."""
    return guard.drafter.level


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_drafts_that_pay_go_on(clock: Clock) -> None:
    """But for a plain step now and then, which is timed."""
    slots = clock.run(guard := guarded(Chain()), 200, accepted=3)
    assert slots[:2] == [1, 1] and level(guard) == Level.FULL and guard.counts.switches == 0
    assert slots.count(1) <= 6


def test_drafts_that_earn_nothing_stop_and_are_tried_again_less_and_less_often(clock: Clock) -> None:
    slots = clock.run(guard := guarded(Chain()), 3000, accepted=0)
    assert level(guard) == Level.OFF
    retries = [i for i in range(1, 3000) if slots[i] > 1 and slots[i - 1] == 1]
    gaps = np.diff(retries)
    assert list(gaps) == sorted(gaps) and gaps[-1] >= POLICY.longest_rest
    assert sum(2.0 if s > 1 else 1.0 for s in slots) / 3000 < 1.03


def test_a_chain_of_which_little_is_accepted_is_cut(clock: Clock) -> None:
    guard = guarded(Chain())
    clock.run(guard, 20, accepted=0)
    assert level(guard) == Level.OFF
    guard = guarded(Chain())
    clock.cost = 3.0
    slots = clock.run(guard, 24, accepted=1)
    assert level(guard) == Level.SHORT and slots[-1] == POLICY.short_slots
    slots = clock.run(guard, 20, accepted=7)
    assert level(guard) == Level.FULL and slots[-1] == 8


def test_bad_luck_stops_no_drafts_that_pay(clock: Clock) -> None:
    clock.cost, guard = 1.5, guarded(Chain())
    for _ in range(50):
        clock.run(guard, 7, accepted=0)
        clock.run(guard, 1, accepted=7)
    assert (level(guard), guard.counts.switches) == (Level.FULL, 0)


@given(st.lists(st.integers(0, 7), max_size=300), st.floats(1.1, 4.0))
def test_drafts_lose_a_bounded_time(accepted: list[int], cost: float) -> None:
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock(patch)
        clock.cost, guard, tokens = cost, guarded(Chain()), 0
        for hits in accepted:
            slots = clock.run(guard, 1, hits)[0]
            tokens += 1 + min(hits, slots - 1)
        changes = (POLICY.retry_budget + 1) * guard.counts.switches
        assert clock.now - tokens <= cost * (POLICY.loss_budget + 1 + changes)


def test_what_begins_to_pay_is_taken_up(clock: Clock) -> None:
    guard = guarded(Chain())
    clock.run(guard, 20, accepted=0)
    assert level(guard) == Level.OFF
    slots = clock.run(guard, 100, accepted=7)
    assert level(guard) == Level.FULL and slots[-1] == 8


def test_the_drafter_observes_its_own_drafts_alone(clock: Clock) -> None:
    chain = Chain()
    slots = clock.run(guarded(chain), 50, accepted=0)
    assert chain.observed == sum(s > 1 for s in slots) < 50


def test_a_request_has_counts_of_its_own(clock: Clock) -> None:
    """What the guard learned holds in the next request; the counts of the last one stay as they are."""
    guard = guarded(Chain())
    first = guard.counts
    clock.run(guard, 20, accepted=0)
    switches, plain_steps = first.switches, first.plain_steps
    assert switches and plain_steps
    later = guard.drafter.open(guard.seq)
    second = later.counts
    assert (second.switches, second.plain_steps, level(later)) == (0, 0, Level.OFF)
    clock.run(later, 5, accepted=0)
    assert (second.switches, second.plain_steps) == (0, 5)
    assert (first.switches, first.plain_steps) == (switches, plain_steps)


def test_a_cut_chain_keeps_the_distributions_after_its_slots(clock: Clock) -> None:
    guard = guarded(Chain())
    clock.run(guard, 2, accepted=0)
    guard.drafter.level = Level.SHORT
    draft = propose(guard)
    assert draft.tokens == (5,) * POLICY.short_slots and draft.tree.is_chain
    assert {slot: probs.tolist() for slot, probs in draft.probs.items()} == {0: [0], 1: [1], 2: [2], 3: [3]}


def test_a_tree_is_not_cut(clock: Clock) -> None:
    """Its verify engine has one shape."""
    guard = guarded(Star())
    clock.run(guard, 2, accepted=0)
    guard.drafter.level = Level.SHORT
    assert propose(guard).tree.slots == 8


def test_a_chain_that_is_short_is_not_cut(clock: Clock) -> None:
    guard = guarded(Chain(), replace(POLICY, short_slots=8))
    clock.run(guard, 2, accepted=0)
    guard.drafter.level = Level.SHORT
    assert len(propose(guard).probs) == 7


def test_the_policy_says_when_and_for_how_long(clock: Clock) -> None:
    """Each draft costs two plain steps and earns one token: it loses half a step with a draft.

    So 13 drafts exceed a budget of 6, and after that 4 exceed what is left of it, 1.5. Rests last 16, 32, … steps.
    """
    guard = guarded(Chain())
    assert clock.run(guard, 2, accepted=0) == [1, 1]
    for drafts, rest in ((13, 16), (4, 32), (4, 64), (4, 128), (4, 256), (4, 512), (4, 512)):
        assert clock.run(guard, drafts, accepted=0) == [8] * drafts and level(guard) == Level.OFF
        assert clock.run(guard, rest - 1, accepted=0) == [1] * (rest - 1)
    assert guard.counts.switches == 14


def test_drafts_that_paid_meanwhile_rest_no_longer_than_at_first(clock: Clock) -> None:
    guard = guarded(Chain())
    clock.run(guard, 2 + 13 + 15 + 4, accepted=0)
    clock.run(guard, 31 + 20, accepted=7)
    assert level(guard) == Level.FULL
    clock.run(guard, 13, accepted=0)
    assert level(guard) == Level.SHORT
    assert clock.run(guard, 16, accepted=7) == [POLICY.short_slots] * 15 + [8]


def test_a_plain_step_is_timed_again_after_many_drafts(clock: Clock) -> None:
    guard = guarded(Chain())
    slots = clock.run(guard, 2 + 3 * 65, accepted=3)
    assert [i for i, s in enumerate(slots) if s == 1] == [0, 1, 66, 131, 196]
    assert guard.counts.plain_steps == 5


def test_a_draft_of_one_token_is_a_draft(clock: Clock) -> None:
    guard = guarded(drafter := Star())
    drafter.slots = 2
    clock.run(guard, 2 + 13, accepted=0)
    assert level(guard) == Level.OFF and guard.counts.plain_steps == 2


def test_one_accepted_token_is_enough_to_try_short_drafts(clock: Clock) -> None:
    """At first, and again after a rest. A draft with one loses nothing, one without loses half a draft."""
    guard = guarded(Chain())
    clock.run(guard, 2, accepted=0)
    for drafts in (13, 4):
        clock.run(guard, 1, accepted=1)
        clock.run(guard, drafts - 1, accepted=0)
        assert level(guard) == Level.FULL
        clock.run(guard, 1, accepted=0)
        assert level(guard) == Level.SHORT
        while level(guard) != Level.FULL:
            clock.run(guard, 1, accepted=0)


def test_the_median_of_the_last_eight_plain_steps_counts(clock: Clock) -> None:
    """They take 3 to 10 s, so 6.5 in the median. A draft of 12 s that gives a token loses 5.5 / 12; 14 lose above 6."""
    guard = guarded(drafter := Star())
    drafter.slots = 1
    for seconds in range(1, 11):
        clock.plain_cost = float(seconds)
        clock.run(guard, 1, accepted=0)
    drafter.slots, clock.cost = 8, 12.0
    clock.run(guard, 13, accepted=0)
    assert level(guard) == Level.FULL
    clock.run(guard, 1, accepted=0)
    assert level(guard) == Level.OFF


def test_a_policy_takes_keywords_and_cannot_change() -> None:
    positional: tuple[Any, ...] = (6.0,)
    with pytest.raises(TypeError):
        GuardPolicy(*positional)
    with pytest.raises(FrozenInstanceError):
        setattr(POLICY, "loss_budget", 1.0)  # noqa: B010


def test_the_median_of_the_last_plain_steps_is_what_a_step_takes(clock: Clock) -> None:
    """Eight slow ones make drafts pay that did not."""
    guard = guarded(Chain())
    clock.run(guard, 15, accepted=0)
    assert level(guard) == Level.OFF
    clock.plain_cost = 4.0
    clock.run(guard, 15, accepted=0)
    assert level(guard) == Level.FULL
    assert set(clock.run(guard, 40, accepted=0)) == {8}
