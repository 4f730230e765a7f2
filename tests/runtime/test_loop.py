"""Steps of several requests at once give each the tokens that it gets alone."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import pytest
from toys import Decoder, Toy, ToyKV, World, cases, prompts

from specc.runtime.engine import Engine
from specc.runtime.loop import Decoding, step
from specc.runtime.rng import SeededRng
from specc.runtime.sampling import Sampling
from specc.runtime.sequence import Caches, Sequence

PROMPTS = prompts(8, seed=4)


class Lanes(World):
    """A world whose engines run over the rows of any request."""

    def engine(self, block: Any) -> Engine:
        runner, vocabulary = self.runner, self.vocabulary
        store = self.stores[block.cache]
        return Engine(
            block.model,
            block,
            runner(block, store, vocabulary),
            store,
            lambda other: runner(block, other, vocabulary) if isinstance(other, ToyKV) else None,
        )

    def begin(self, decoder: Decoder, prompt: list[int], sampling: Sampling) -> Decoding:
        """Begin a request with caches of its own."""
        seq = Sequence(list(prompt), Caches(lambda name: ToyKV()), sampling)
        self.prefill.extend(seq.cache, prompt[:-1])
        return decoder.open(seq)


@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize("case", cases().values(), ids=cases())
def test_requests_that_step_together_get_the_tokens_of_each_alone(case: dict[str, Any], temperature: float) -> None:
    """Requests come and go between the steps."""
    world, count = Lanes(), 40
    decoder, plain = world.method(**case), World().method("plain")
    samplings = [Sampling(temperature, rng=SeededRng(i)) for i in range(len(PROMPTS))]
    requests = [world.begin(decoder, prompt, s) for prompt, s in zip(PROMPTS, samplings, strict=True)]
    active, waiting = requests[:2], requests[2:]
    while active:
        step(active)
        lengths = {id(r): len(r.seq.tokens) - len(p) for r, p in zip(requests, PROMPTS, strict=True)}
        active = [request for request in active if lengths[id(request)] < count] + waiting[:1]
        del waiting[:1]
    for request, prompt, sampling in zip(requests, PROMPTS, samplings, strict=True):
        assert request.seq.tokens[len(prompt) :][:count] == plain.run(prompt, count, sampling)[0]


def test_calls_of_one_engine_go_into_one_run(monkeypatch: pytest.MonkeyPatch) -> None:
    world, runs = Lanes(), Counter[tuple[int, int]]()
    decoder = world.method("layer-skip", num_speculative_tokens=3)
    requests = [world.begin(decoder, prompt, Sampling()) for prompt in PROMPTS[:3]]
    run = Engine.run

    def counted(self: Engine, calls: Any) -> Any:
        runs[self.slots, len(calls)] += 1
        return run(self, calls)

    monkeypatch.setattr(Engine, "run", counted)
    step(requests)
    assert runs == {(1, 3): 3, (4, 3): 1}
    assert [(r.stats.draft_calls, r.stats.target_calls, r.stats.drafts) for r in requests] == [(3, 1, 1)] * 3


def test_time_is_that_of_the_steps_and_of_the_runs_in_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run takes a second, and one more passes around. What the caller does between two steps does not count."""
    now = [50.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    class Slow(Toy):
        def run(self) -> None:
            super().run()
            now[0] += 1

    world = Lanes(runner=Slow)
    decoder = world.method("layer-skip", num_speculative_tokens=3)
    request = world.begin(decoder, PROMPTS[0], Sampling())
    rule = request.accept

    def accept(draft: Any, verified: Any) -> Any:
        now[0] += 1
        return rule(draft, verified)

    request.accept = accept  # type: ignore[assignment]
    for _ in range(2):
        step([request])
        now[0] += 9
    stats = request.stats
    assert (stats.target_calls, stats.draft_calls, stats.drafts) == (2, 6, 2)
    assert stats.seconds == pytest.approx(10.0)
    assert stats.engine_seconds == pytest.approx(8.0)
    assert stats.overhead_fraction == pytest.approx(0.2)
