"""Calls made by forks: in order, several at once, with their errors, and none left behind."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from functools import partial

import pytest

from specc.compiler import fork_pool
from specc.compiler.fork_pool import call_each
from specc.runtime.errors import BackendError, PassError

pytestmark = pytest.mark.torch

CALLS = 5
state = {"prepared": 0}


def nothing(number: int) -> None:
    pass


def slow_square(number: int) -> tuple[int, int]:
    time.sleep(0.05 * (CALLS - number))
    return number * number, os.getpid()


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_results_come_in_order_and_each_call_is_announced(at_once: int) -> None:
    starts: list[int] = []
    results = call_each([partial(slow_square, n) for n in range(CALLS)], at_once, starts.append)
    assert [square for square, _ in results] == [0, 1, 4, 9, 16]
    assert starts == [0, 1, 2, 3, 4]
    here = [pid == os.getpid() for _, pid in results]
    assert here == ([True] * CALLS if at_once == 1 else [True, False, False, False, False])


def test_forks_run_at_the_same_time() -> None:
    """Each reads from a pipe into which the other one writes, so that neither ends alone."""
    first, second = os.pipe(), os.pipe()

    def meet(write: int, read: int) -> bytes:
        os.write(write, b"x")
        return os.read(read, 1)

    pairs = partial(meet, first[1], second[0]), partial(meet, second[1], first[0])
    calls: list[Callable[[], bytes]] = [lambda: b"", *pairs]
    assert call_each(calls, 2, nothing) == [b"", b"x", b"x"]
    for end in (*first, *second):
        os.close(end)


def test_no_more_forks_run_than_are_allowed() -> None:
    """Each call writes a sign as it begins and one as it ends."""
    read, write = os.pipe()

    def mark() -> None:
        os.write(write, b"+")
        time.sleep(0.05)
        os.write(write, b"-")

    call_each([lambda: None, *[mark] * 6], 2, nothing)
    os.close(write)
    running, most = 0, 0
    for sign in os.read(read, 100).decode():
        running += 1 if sign == "+" else -1
        most = max(most, running)
    os.close(read)
    assert (running, most) == (0, 2)


@pytest.mark.parametrize("at_once", [1, 2])
def test_an_error_is_raised_here_and_ends_the_others(at_once: int) -> None:
    def fail() -> int:
        raise PassError("found nothing to change")

    start = time.monotonic()
    calls: list[Callable[[], object]] = [partial(int, 1), fail, partial(time.sleep, 60)]
    with pytest.raises(PassError, match="found nothing"):
        call_each(calls, at_once, nothing)
    assert time.monotonic() - start < 30


def test_a_killed_fork_is_one_line_with_a_remedy() -> None:
    calls: list[Callable[[], object]] = [partial(int, 1), lambda: os.kill(os.getpid(), signal.SIGKILL)]
    with pytest.raises(BackendError, match=r"status -9.*SPECC_THREADS=1"):
        call_each(calls, 2, nothing)


def test_each_fork_is_prepared_and_this_process_is_not() -> None:
    def prepare() -> None:
        state["prepared"] += 1

    calls = [lambda: state["prepared"]] * 3
    assert call_each(calls, 2, nothing, prepare) == [0, 1, 1]
    assert state["prepared"] == 0


def test_where_a_process_cannot_fork_all_calls_are_made_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fork_pool, "get_all_start_methods", lambda: ["spawn"])
    assert call_each([os.getpid] * 3, 2, nothing) == [os.getpid()] * 3


def test_no_calls_give_no_results() -> None:
    assert call_each([], 2, nothing) == []
