"""Lanes: caches that requests take and give back, and the lock by which they take turns."""

from __future__ import annotations

import time
from collections.abc import Sequence as Tokens
from threading import Thread
from typing import Any, cast

import numpy as np
import pytest
from toys import ToyKV

from specc.runtime.engines import Engines
from specc.runtime.errors import BackendError, SpeccError
from specc.runtime.lanes import FairLock, Lane, Lanes, ReusePolicy
from specc.runtime.sequence import Sequence

TEXT = list(range(100, 140))


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


def lanes_of(count: int, shares_rows: bool = True) -> tuple[Lanes, Stores]:
    stores: Any = Stores(count)
    return Lanes(cast(Engines, stores), shares_rows), stores


def fill(lane: Lane, tokens: Tokens[int], exact_engine: str = "", name: str = "target") -> None:
    """Let a lane hold the rows of a text, which are the tokens themselves."""
    lane.claim(Sequence([*tokens, 0], lane.caches), exact_engine)
    cache = lane.caches[name]
    cache.sync([])
    rows_of(lane, name)[: len(tokens)] = tokens
    cache.commit(tokens, range(len(tokens)))


def rows_of(lane: Lane, name: str = "target") -> np.ndarray:
    """Return the rows of the first layer."""
    store = lane.caches[name].store
    assert isinstance(store, ToyKV)
    return cast(np.ndarray, store.rows_LC[0])


def ready(lanes: Lanes, tokens: Tokens[int], exact_engine: str = "") -> Lane:
    """Take a lane for a prompt, claim it, and reuse what there is."""
    lane = lanes.take(tokens)
    lane.claim(Sequence(list(tokens), lane.caches), exact_engine)
    lanes.reuse(lane, tokens[:-1])
    return lane


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


def test_the_lane_that_was_free_for_longest_is_taken_first() -> None:
    lanes, _ = lanes_of(3)
    first, second, third = lanes.take(), lanes.take(), lanes.take()
    for lane in (second, first, third):
        lanes.give_back(lane)
    assert [lanes.take(), lanes.take(), lanes.take()] == [second, first, third]


def test_a_prompt_takes_the_free_lane_whose_rows_it_continues() -> None:
    lanes, _ = lanes_of(3)
    three = [lanes.take() for _ in range(3)]
    for lane, rows in zip(three, (10, 30, 20), strict=True):
        fill(lane, TEXT[:rows])
        lanes.give_back(lane)
    assert ready(lanes, TEXT) is three[1] and three[1].caches["target"].tokens == TEXT[:30]


def test_a_lane_of_another_conversation_keeps_its_rows_where_a_copy_does() -> None:
    """The first lane has been free for longest; the last one has a long answer behind the rows that are shared."""
    lanes, _ = lanes_of(2)
    first, last = lanes.take(), lanes.take()
    fill(last, [*TEXT[:30], *range(900, 940)])
    lanes.give_back(first)
    lanes.give_back(last)
    assert ready(lanes, TEXT) is first
    assert first.caches["target"].tokens == TEXT[:30] == rows_of(first)[:30].tolist()
    assert len(last.caches["target"]) == 70


def test_rows_are_copied_from_a_lane_in_use_as_far_as_the_texts_agree() -> None:
    lanes, _ = lanes_of(2)
    busy = lanes.take()
    fill(busy, TEXT)
    fill(busy, TEXT, name="draft")
    free = lanes.take()
    _ = free.caches["draft"]
    lanes.give_back(free)
    prompt = [*TEXT[:25], 7, 7, 7]
    assert ready(lanes, prompt) is free and not free.caches["draft"].tokens
    lanes.reuse(free, prompt, "draft")
    for name in ("target", "draft"):
        assert free.caches[name].tokens == TEXT[:25] == rows_of(free, name)[:25].tolist()
    assert busy.caches["target"].tokens == TEXT


def test_a_lane_gets_a_cache_for_rows_that_are_copied_and_none_if_there_are_none() -> None:
    lanes, _ = lanes_of(2)
    busy, lane = lanes.take(), lanes.take()
    fill(busy, TEXT, name="draft")
    lanes.reuse(lane, TEXT, "other")
    lanes.reuse(lane, TEXT[:15], "draft")
    assert set(lane.caches) == {"target"}
    lanes.reuse(lane, TEXT, "draft")
    assert lane.caches["draft"].tokens == TEXT


def test_the_last_token_of_a_prompt_runs_although_its_row_is_there() -> None:
    lanes, _ = lanes_of(2)
    fill(lanes.take(), TEXT)
    assert ready(lanes, TEXT).caches["target"].tokens == TEXT[:-1]


@pytest.mark.parametrize(("rows", "copied"), [(15, 0), (16, 16)])
def test_a_few_rows_are_not_worth_a_copy(rows: int, copied: int) -> None:
    assert ReusePolicy().min_copied_rows == 16
    lanes, _ = lanes_of(2)
    fill(lanes.take(), TEXT[:rows])
    assert len(ready(lanes, TEXT).caches["target"]) == copied


def test_exact_rows_are_copied_to_requests_of_their_width_only() -> None:
    for shares_rows in (True, False):
        lanes, _ = lanes_of(4, shares_rows)
        fill(lanes.take(), TEXT, "verify-8")
        lengths = [len(ready(lanes, TEXT, width).caches["target"]) for width in ("", "verify-4", "verify-8")]
        assert lengths == [0, 0, len(TEXT) - 1]


def test_a_request_finds_no_rows_of_others_where_they_could_change_its_tokens() -> None:
    lanes, _ = lanes_of(2, shares_rows=False)
    first = lanes.take()
    fill(first, TEXT)
    assert len(ready(lanes, TEXT).caches["target"]) == 0
    lanes.give_back(first)
    assert ready(lanes, TEXT) is first and len(first.caches["target"]) == 0
    fill(first, TEXT)
    first.claim(Sequence(TEXT, first.caches), "")
    assert first.caches["target"].tokens == TEXT  # Those of the conversation itself stay.


def test_a_prompt_waits_for_rows_that_another_one_computes() -> None:
    for shares_rows in (True, False):
        lanes, _ = lanes_of(1, shares_rows)
        lane = lanes.take()
        assert lanes.should_wait(lane, TEXT, [*TEXT[:17], 7]) is shares_rows
        assert not lanes.should_wait(lane, TEXT, [*TEXT[:16], 7])  # The last row that they share may have to run.
        fill(lane, TEXT[:30])
        assert not lanes.should_wait(lane, TEXT, TEXT)


def test_a_model_that_is_closed_has_no_rows_to_copy() -> None:
    lanes, _ = lanes_of(2)
    busy = lanes.take()
    fill(busy, TEXT)
    lane = lanes.take()
    lane.claim(Sequence(TEXT, lane.caches), "")
    lanes.drop()
    lanes.reuse(lane, TEXT)
    assert len(lane.caches) == len(busy.caches) == 0


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


@pytest.mark.thorough
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


def test_a_session_that_is_collected_while_a_lane_is_taken_stops_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python may run the finalizer of a session at any allocation, so in a thread that takes a lane too."""
    lanes, _ = lanes_of(2)
    first, second = lanes.take(), lanes.take()
    lanes.give_back(first)

    def collects(lane: Lane, prompt: Tokens[int]) -> int:
        if second not in lanes._free:
            lanes.give_back(second)
        return 0

    monkeypatch.setattr(lanes, "_worth", collects)
    taker = Thread(target=lanes.take, daemon=True)
    taker.start()
    taker.join(10)
    assert not taker.is_alive()
    assert lanes._free == [second]
