"""The process of a peer: it answers when its threads rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from specc.bench.peers import worker


class Clock:
    """A clock of a process whose threads work for some seconds, and then rest."""

    def __init__(self, seconds: float) -> None:
        self.now, self.work = 0.0, seconds

    def perf_counter(self) -> float:
        return self.now

    def process_time(self) -> float:
        return min(self.now, self.work)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.mark.parametrize(("seconds", "longest", "bounds"), [(0.3, 5.0, (0.3, 2.0)), (1.5, 0.1, (0.1, 1.0))])
def test_a_peer_answers_when_its_threads_rest_or_soon(
    seconds: float, longest: float, bounds: tuple[float, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(seconds)
    monkeypatch.setattr(worker, "time", clock)
    worker.rest(longest)
    assert bounds[0] <= clock.now < bounds[1]


def test_a_gguf_file_is_used_as_it_is() -> None:
    assert worker.gguf("m.gguf", Path("/nowhere/out.gguf"), "fp32") == "m.gguf"


def test_an_error_is_described_in_one_short_line() -> None:
    line = worker.describe(ValueError("a\n  b" + "c" * 1000))
    assert line.startswith("ValueError: a bccc") and len(line) == worker.ERROR_LENGTH
