"""Calls side by side: in order, with their errors, and none left behind."""

from __future__ import annotations

import os
import signal
import time
from functools import partial

import pytest

from specc.compiler.fork_pool import call_each
from specc.runtime.errors import BackendError, PassError

pytestmark = pytest.mark.torch


def nothing(number: int) -> None:
    pass


def slow_square(number: int) -> tuple[int, int]:
    time.sleep(0.05 * (5 - number))
    return number * number, os.getpid()


@pytest.mark.parametrize("at_once", [1, 2, 3])
def test_answers_come_in_order_and_each_call_is_announced(at_once: int) -> None:
    begun: list[int] = []
    answers = call_each([partial(slow_square, n) for n in range(5)], at_once, begun.append)
    assert [square for square, _ in answers] == [0, 1, 4, 9, 16]
    assert begun == [0, 1, 2, 3, 4]
    here = [pid == os.getpid() for _, pid in answers]
    assert here == ([True] * 5 if at_once == 1 else [True, False, False, False, False])


def test_forks_run_at_the_same_time() -> None:
    start = time.monotonic()
    call_each([partial(time.sleep, 0), partial(time.sleep, 0.5), partial(time.sleep, 0.5)], 2, nothing)
    assert time.monotonic() - start < 0.95


@pytest.mark.parametrize("at_once", [1, 2])
def test_an_error_is_raised_here_and_ends_the_others(at_once: int) -> None:
    def fail() -> int:
        raise PassError("found nothing to change")

    with pytest.raises(PassError, match="found nothing"):
        call_each([partial(int, 1), fail, partial(time.sleep, 60)], at_once, nothing)


def test_a_killed_fork_is_one_line_with_a_remedy() -> None:
    with pytest.raises(BackendError, match=r"status -9.*SPECC_THREADS=1"):
        call_each([partial(int, 1), lambda: os.kill(os.getpid(), signal.SIGKILL)], 2, nothing)


def test_no_calls_no_answers() -> None:
    assert call_each([], 2, nothing) == []
