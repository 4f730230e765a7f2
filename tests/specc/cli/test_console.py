"""What the command line prints, and how it ends."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

import pytest

from specc.cli import console


@pytest.fixture
def handlers() -> Iterator[None]:
    numbers = signal.SIGINT, signal.SIGTERM
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)
    console._ending.clear()


@pytest.mark.usefixtures("handlers")
@pytest.mark.parametrize(("number", "raised"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, SystemExit)])
def test_a_signal_that_a_library_swallowed_ends_the_work_at_its_next_stage(number, raised):
    signal.signal(number, signal.default_int_handler)
    console.heed_signals()
    with contextlib.suppress(BaseException):
        signal.raise_signal(number)
    with console.stages() as stage, pytest.raises(raised):
        stage("build", 0, 1)


@pytest.mark.usefixtures("handlers")
def test_a_signal_that_the_shell_ignores_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    console.heed_signals()
    signal.raise_signal(signal.SIGINT)
    with console.stages() as stage:
        stage("build", 0, 1)
