"""The guard: drafts go on while they pay, are cut where shorter ones might, stop where they do not, and come back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specc.runtime import guard as module
from specc.runtime.draft import Accepted, Draft, Outputs, Verified
from specc.runtime.guard import AGAIN, FULL, LIMIT, LONGEST_REST, OFF, SHORT, SHORT_SLOTS, Guard
from specc.runtime.sampling import Sampling
from specc.runtime.sequence import Cache, Sequence

VERIFIED = Verified(Outputs(np.zeros(1, np.int64)), Sampling())


class Chain:
    """Drafts seven tokens, and counts what it was told."""

    def __init__(self) -> None:
        self.observed = 0

    def propose(self, seq: Sequence) -> Draft:
        return Draft.chain([seq.pending] * 8)

    def observe(self, seq, draft, verified, accepted) -> None:
        self.observed += 1


class Clock:
    """A step without a draft takes a second, one with a draft `cost` seconds."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.cost = 0.0, 2.0
        monkeypatch.setattr(module.time, "perf_counter", lambda: self.now)

    def run(self, guard: Guard, steps: int, accepted: int) -> list[int]:
        """Take steps in which `accepted` drafted tokens are kept; return the slots of each."""
        seq, slots = Sequence([0], Cache(None)), []
        for _ in range(steps):
            draft = guard.propose(seq)
            slots.append(draft.tree.slots)
            self.now += self.cost if draft.tree.slots > 1 else 1.0
            kept = min(accepted, draft.tree.slots - 1)
            guard.observe(seq, draft, VERIFIED, Accepted(tuple(range(kept + 1)), 0))
        return slots


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_drafts_that_pay_go_on(clock):
    slots = clock.run(guard := Guard(Chain()), 200, accepted=3)
    assert slots[:2] == [1, 1] and guard.level == FULL and guard.switches == 0
    assert slots.count(1) <= 6  # to time a step without a draft, now and then


def test_drafts_that_earn_nothing_stop_and_are_tried_again_less_and_less_often(clock):
    slots = clock.run(guard := Guard(Chain()), 3000, accepted=0)
    assert guard.level == OFF
    tried = [i for i in range(1, 3000) if slots[i] > 1 and slots[i - 1] == 1]
    gaps = np.diff(tried)
    assert list(gaps) == sorted(gaps) and gaps[-1] >= LONGEST_REST
    assert sum(2.0 if s > 1 else 1.0 for s in slots) / 3000 < 1.03


def test_a_chain_of_which_little_is_accepted_is_cut(clock):
    guard = Guard(Chain())
    slots = clock.run(guard, 20, accepted=0)
    assert guard.level == OFF
    guard = Guard(Chain())
    clock.cost = 3.0
    slots = clock.run(guard, 24, accepted=1)
    assert guard.level == SHORT and slots[-1] == SHORT_SLOTS
    slots = clock.run(guard, 20, accepted=7)
    assert guard.level == FULL and slots[-1] == 8


def test_bad_luck_stops_no_drafts_that_pay(clock):
    clock.cost, guard = 1.5, Guard(Chain())
    for _ in range(50):
        clock.run(guard, 7, accepted=0)
        clock.run(guard, 1, accepted=7)
    assert (guard.level, guard.switches) == (FULL, 0)


@given(st.lists(st.integers(0, 7), max_size=300), st.floats(1.1, 4.0))
def test_drafts_lose_a_bounded_time(accepted, cost):
    with pytest.MonkeyPatch.context() as patch:
        clock = Clock(patch)
        clock.cost, guard, tokens = cost, Guard(Chain()), 0
        for kept in accepted:
            slots = clock.run(guard, 1, kept)[0]
            tokens += 1 + min(kept, slots - 1)
        assert clock.now - tokens <= cost * (LIMIT + 1 + (AGAIN + 1) * guard.switches)


def test_what_begins_to_pay_is_taken_up(clock):
    guard = Guard(Chain())
    clock.run(guard, 20, accepted=0)
    assert guard.level == OFF
    slots = clock.run(guard, 100, accepted=7)
    assert guard.level == FULL and slots[-1] == 8


def test_the_drafter_hears_of_its_own_drafts_alone(clock):
    chain = Chain()
    slots = clock.run(Guard(chain), 50, accepted=0)
    assert chain.observed == sum(s > 1 for s in slots) < 50


def test_a_request_counts_its_own_switches(clock):
    guard = Guard(Chain())
    clock.run(guard, 20, accepted=0)
    assert guard.switches and guard.plain_steps
    guard.begin()
    assert (guard.switches, guard.plain_steps, guard.level) == (0, 0, OFF)
