"""The CPU time of work on the host, for tests that compare it with a step."""

import time
from collections.abc import Callable

ROUNDS = 5


def measure_least(prepare: Callable[[], Callable[[], None]]) -> float:
    """Returns the least CPU seconds that the work of `prepare()` took, of five rounds.

    Other programs share the processor's caches and its two threads a core, so a round may take twice the time of
    another. What a round adds to the least one is not the work's own. `prepare` is called for each round, and its own
    time does not count.
    """
    seconds = []
    for _ in range(ROUNDS):
        work = prepare()
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return min(seconds)
