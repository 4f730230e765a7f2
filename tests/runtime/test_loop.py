"""A step of one request."""

from __future__ import annotations

import time
from typing import Any

import pytest
from toys import Toy, World, prompts

from specc.runtime.loop import step
from specc.runtime.sampling import Sampling
from specc.runtime.sequence import Sequence


def test_time_is_that_of_the_steps_and_of_the_runs_in_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run takes a second, and one more passes around. What the caller does between two steps does not count."""
    now = [50.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    class Slow(Toy):
        def run(self) -> None:
            super().run()
            now[0] += 1

    world = World(runner=Slow)
    decoder = world.method("layer-skip", num_speculative_tokens=3)
    seq = Sequence(prompts(1, seed=4)[0], world.caches, Sampling())
    world.prefill.extend(seq.cache, seq.tokens[:-1])
    request = decoder.open(seq)
    rule = request.accept

    def accept(draft: Any, verified: Any) -> Any:
        now[0] += 1
        return rule(draft, verified)

    request.accept = accept  # type: ignore[assignment]
    for _ in range(2):
        step(request)
        now[0] += 9
    stats = request.stats
    assert (stats.target_calls, stats.draft_calls, stats.drafts) == (2, 6, 2)
    assert stats.seconds == pytest.approx(10.0)
    assert stats.engine_seconds == pytest.approx(8.0)
    assert stats.overhead_fraction == pytest.approx(0.2)
