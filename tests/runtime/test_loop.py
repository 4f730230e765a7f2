"""A step of one request."""

from __future__ import annotations

import time
from typing import Any

import pytest
from toys import Toy, World, prompts, step

from specc.runtime.block import Block
from specc.runtime.draft import Draft
from specc.runtime.drafters import Drafting
from specc.runtime.engine import Engine
from specc.runtime.sampling import Sampling
from specc.runtime.sequence import Sequence
from specc.runtime.tree import Tree


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
    assert stats.verify_fraction == pytest.approx(0.2)  # Two of the eight calls verify.


def test_a_draft_may_name_the_engine_that_verifies_it() -> None:
    """Otherwise the narrowest one that it fits does."""
    world = World()
    decoder = world.method("prompt-lookup")
    wide = decoder.verifiers[-1]
    for by, calls in ((None, 0), (wide, 1)):
        seq = Sequence(prompts(1, seed=4)[0], world.caches, Sampling())
        world.prefill.extend(seq.cache, seq.cache.sync(seq.tokens[:-1]))
        request = decoder.open(seq)
        narrow = world.engine(Block(Tree.chain(1)))
        request.verifiers = [narrow, *request.verifiers]
        request.drafting = Single(decoder.drafter, seq, by)
        before = wide.calls
        step(request)
        assert (wide.calls - before, narrow.calls) == (calls, 1 - calls)


class Single(Drafting[Any]):
    """A drafting that proposes nothing, for one engine to verify."""

    def __init__(self, drafter: Any, seq: Sequence, by: Engine | None) -> None:
        super().__init__(drafter, seq)
        self.by = by

    def draft(self, room: int) -> Draft:
        return Draft((self.seq.pending,), Tree.chain(1), by=self.by)
