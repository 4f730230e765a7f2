"""The process of a peer: it answers when its threads rest."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from specc.bench.peers import worker


def burn(seconds: float, enough: threading.Event) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end and not enough.is_set():
        pass


@pytest.mark.parametrize(("seconds", "longest", "bounds"), [(0.3, 5.0, (0.3, 2.0)), (1.5, 0.1, (0.1, 1.0))])
def test_a_peer_answers_when_its_threads_rest_or_soon(
    seconds: float, longest: float, bounds: tuple[float, float]
) -> None:
    enough = threading.Event()
    thread = threading.Thread(target=burn, args=[seconds, enough])
    start = time.perf_counter()
    thread.start()
    worker.rest(longest)
    assert bounds[0] <= time.perf_counter() - start < bounds[1]
    enough.set()
    thread.join()


def test_a_gguf_file_is_used_as_it_is() -> None:
    assert worker.gguf("m.gguf", Path("/nowhere/out.gguf"), "fp32") == "m.gguf"


def test_an_error_is_described_in_one_short_line() -> None:
    line = worker.describe(ValueError("a\n  b" + "c" * 1000))
    assert line.startswith("ValueError: a bccc") and len(line) == worker.ERROR_LENGTH
