"""Lanes: caches that requests take and give back, and the lock by which they take turns."""

from __future__ import annotations

import time
from threading import Thread
from typing import Any, cast

import pytest
from toys import ToyKV

from specc.runtime.engines import Engines
from specc.runtime.errors import BackendError, SpeccError
from specc.runtime.lanes import FairLock, Lanes
from specc.runtime.sequence import Sequence


class Stores:
    """Engines that make rows, for so many lanes."""

    def __init__(self, lanes: int) -> None:
        self.lanes, self.closed = lanes, False

    def store(self, name: str, lane: int = 0) -> ToyKV:
        if lane >= self.lanes:
            raise BackendError("no room")
        return ToyKV()

    def check_open(self) -> None:
        if self.closed:
            raise SpeccError("closed")


def lanes_of(count: int) -> tuple[Lanes, Stores]:
    stores: Any = Stores(count)
    return Lanes(cast(Engines, stores)), stores


def test_a_lane_that_was_given_back_is_taken_before_another_is_made() -> None:
    lanes, _ = lanes_of(2)
    first, second = lanes.take(), lanes.take()
    assert first is lanes.first is not second
    with pytest.raises(BackendError, match="no room"):
        lanes.take()
    lanes.give_back(second)
    lanes.give_back(second)
    assert lanes.take() is second
    with pytest.raises(BackendError):
        lanes.take()


def test_closed_engines_have_no_lane() -> None:
    lanes, stores = lanes_of(2)
    stores.closed = True
    with pytest.raises(SpeccError, match="closed"):
        lanes.take()


def test_rows_by_another_width_are_dropped_in_every_cache() -> None:
    lanes, _ = lanes_of(1)
    lane, text = lanes.take(), [1, 2, 3]
    for name in ("target", "draft"):
        lane.caches[name].tokens += text
    seq = Sequence([*text, 4], lane.caches)
    lane.claim(seq, "")
    assert lane.current is seq and [cache.tokens for cache in lane.caches.values()] == [text, text]
    lane.claim(seq, "verify-8")
    assert [cache.tokens for cache in lane.caches.values()] == [[], []]


def test_a_text_moves_to_the_caches_of_the_lane_that_it_claims() -> None:
    lanes, _ = lanes_of(2)
    one, two = lanes.take(), lanes.take()
    seq = Sequence([1], one.caches)
    two.claim(seq, "")
    assert seq.caches is two.caches and seq.cache is two.caches["target"]


def test_a_thread_that_takes_a_lock_again_and_again_lets_others_in() -> None:
    lock, turns, stop = FairLock(), [0, 0], [False]

    def work(number: int) -> None:
        while not stop[0]:
            with lock:
                turns[number] += 1
                time.sleep(0.001)

    threads = [Thread(target=work, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    time.sleep(0.5)
    stop[0] = True
    for thread in threads:
        thread.join()
    assert min(turns) > 0.25 * sum(turns) > 0
