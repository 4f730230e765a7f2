"""PEARL: the draft model and the target run at once."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import Any, ClassVar

from toys import Toy, World, prompts, step

from specc.recipes import DECODE
from specc.runtime.call import Call
from specc.runtime.draft import Outputs
from specc.runtime.sequence import Sequence
from specc.runtime.together import RequestStep, send
from specc.runtime.tree import Tree

PROMPTS = prompts(6, seed=2)
TARGET, DRAFT = 0.02, 0.006  # seconds of a call


class Sleeper(Toy):
    """A model whose calls take a while. `spans` has the model, the start and the end of each call."""

    spans: ClassVar[list[tuple[str, float, float]]] = []

    def run(self) -> None:
        start = time.perf_counter()
        super().run()
        if not self.block.last_row:
            time.sleep(DRAFT if self.block.model == "assistant" else TARGET)
            self.spans.append((self.block.model, start, time.perf_counter()))


def overlap(a: tuple[float, float], b: tuple[float, float]) -> float:
    return max(0.0, min(a[1], b[1]) - max(a[0], b[0]))


def test_pearl_drafts_while_the_target_verifies() -> None:
    """The calls of the two models overlap, so a step takes the longer of both and not their sum."""
    decoder = World(runner=Sleeper).method("pearl", assistant=True, num_speculative_tokens=3)
    seq = Sequence(list(PROMPTS[0]), decoder.world.caches)
    steps = decoder.steps(seq)
    next(steps)
    Sleeper.spans.clear()
    start = time.perf_counter()
    for _ in range(8):
        next(steps)
    seconds = time.perf_counter() - start
    target = [(a, b) for model, a, b in Sleeper.spans if model == "target"]
    draft = [(a, b) for model, a, b in Sleeper.spans if model == "assistant"]
    assert len(target) == 8 and len(draft) >= 24
    shared = sum(overlap(a, b) for a in target for b in draft)
    total = sum(b - a for a, b in target), sum(b - a for a, b in draft)
    assert shared > 0.8 * min(total)
    assert seconds < sum(total) - 0.5 * min(total)


def test_a_step_without_tokens_ahead_runs_one_slot_and_the_next_one_verifies_what_was_drafted() -> None:
    """Pre-verify and post-verify."""
    decoder = World().method("pearl", assistant=True, num_speculative_tokens=4)
    seq = Sequence(list(PROMPTS[1]), decoder.world.caches)
    slots, right = [], [False]
    for (draft, accepted), _ in zip(decoder.steps(seq), range(60), strict=False):
        slots.append(draft.tree.slots)
        assert (draft.tree.slots > 1) <= right[-1]
        right.append(len(accepted.slots) == draft.tree.slots)
    assert slots[0] == 1 and 1 < max(slots) <= 5
    assert all(right[i] for i, count in enumerate(slots) if count > 1)


def test_what_is_drafted_ahead_is_what_the_draft_model_says_of_the_text() -> None:
    decoder = World().method("pearl", assistant=True, num_speculative_tokens=2)
    seq = Sequence(list(PROMPTS[2]), decoder.world.caches)
    request = decoder.open(seq)
    decoder.world.prefill.extend(seq.cache, seq.tokens[:-1])
    drafting: Any = request.drafting
    for _ in range(6):
        step(request)
        world = World()
        engine, cache = world.engine(decoder.drafter.engine.block), world.caches["assistant"]
        for end in (-2, -1):  # the two tokens that were drafted last, each after all before it
            cache.sync([])
            engine.extend(cache, drafting.ahead[:end])
            assert engine.outputs.ids_N[0] == drafting.ahead[end]


def test_what_may_run_meanwhile_runs_first_where_requests_share_a_run() -> None:
    events: list[str] = []

    def meanwhile() -> Generator[Call, Outputs, None]:
        events.append("meanwhile")
        yield from ()

    def calls() -> Generator[Call, Outputs, None]:
        yield call
        events.append("step")
        yield call

    world = World()
    engine = world.engine(DECODE)
    call = Call(engine, world.cache, 0, [1], Tree.chain(1), meanwhile=meanwhile())
    request = RequestStep(calls(), lambda seconds: None)
    next(request.calls)
    assert send(request, call, engine.outputs) is call and events == ["meanwhile", "step"]
