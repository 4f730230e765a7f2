"""Steps of several requests together: each gets the tokens that it gets alone, and calls share runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence as Items
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from toys import Decoder, Toy, ToyKV, World, cases, prompts

from specc.runtime.acceptance import Keeps
from specc.runtime.block import LOOP, Block
from specc.runtime.call import Call
from specc.runtime.draft import Outputs
from specc.runtime.drafters.shared_exit import SharedExit
from specc.runtime.engine import Engine
from specc.runtime.errors import BackendError
from specc.runtime.lane_calls import LanesEngine
from specc.runtime.loop import Decoding, stepping
from specc.runtime.rng import SeededRng
from specc.runtime.sampling import Sampling
from specc.runtime.sequence import Caches, Sequence
from specc.runtime.together import RequestStep, run_together

LANES = 3
PROMPTS = prompts(8, seed=4)


class ToyLanes(LanesEngine):
    """An engine with lanes that runs each call by an engine of its own.

    Attributes:
        runs: how often it ran calls of these widths.
        loops: for each run, the loops of a recursive draft model that its calls ran.
    """

    def __init__(self, block: Block) -> None:
        self.block, self.seconds, self.runs = block, 0.0, Counter[tuple[int, ...]]()
        self.loops: list[set[int]] = []

    def room(self, widths: Items[int]) -> bool:
        return len(widths) <= LANES

    def run(self, calls: Items[Call]) -> list[Outputs]:
        self.runs[tuple(len(call.tokens) for call in calls)] += 1
        self.loops.append({int(loop) for call in calls for loop in call.inputs.get(LOOP, np.empty((0, 1))).argmax(-1)})
        self.seconds += 1.0
        return [call.run().copy() for call in calls]


class Several(World):
    """A world whose engines run over the rows of any request, and whose target has an engine with lanes."""

    def __init__(self, merges_loops: bool = True) -> None:
        self.lanes: dict[Any, ToyLanes] = {}
        self.merges_loops = merges_loops
        super().__init__()

    def engine(self, block: Any) -> Engine:
        store = self.stores[block.cache]
        return Engine(block.model, block, self.runner(block, store, self.vocabulary), store, self.bind(block))

    def lanes_for(self, engine: Engine) -> ToyLanes | None:
        block = engine.block
        if LOOP in block.inputs:
            return self.lanes.setdefault(LOOP, ToyLanes(block)) if self.merges_loops else None
        if block.model != "target" or block.layers != Block(block.topology).layers or block.weights != "fp32":
            return None
        return self.lanes.setdefault(replace(block, topology=self.prefill.block.topology), ToyLanes(block))

    def begin(self, decoder: Decoder, prompt: list[int], sampling: Sampling) -> Decoding:
        """Begin a request with caches of its own."""
        seq = Sequence(list(prompt), Caches(lambda name: ToyKV()), sampling)
        self.prefill.extend(seq.cache, prompt[:-1])
        return decoder.open(seq)

    def step(self, requests: list[Decoding]) -> list[Any]:
        """Take a step of each request."""
        return run_together([RequestStep(stepping(r), r.stats.charge) for r in requests], self.lanes_for)


@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize("count", [12, pytest.param(40, marks=pytest.mark.slow)])
@pytest.mark.parametrize("case", cases().values(), ids=cases())
def test_requests_that_step_together_get_the_tokens_of_each_alone(
    case: dict[str, Any], count: int, temperature: float
) -> None:
    """Requests come and go between the steps. Alone, a rule that keeps tokens gives those of plain decoding."""
    world = Several()
    decoder = world.method(**case)
    keeps_tokens = temperature == 0 or decoder.accept.keeps == Keeps.TOKENS
    alone = World().method("plain") if keeps_tokens else World().method(**case)
    samplings = [Sampling(temperature, rng=SeededRng(i)) for i in range(len(PROMPTS))]
    requests = [world.begin(decoder, prompt, s) for prompt, s in zip(PROMPTS, samplings, strict=True)]
    active, waiting = requests[:2], requests[2:]
    while active:
        assert not any(isinstance(result, Exception) for result in world.step(active))
        lengths = {id(r): len(r.seq.tokens) - len(p) for r, p in zip(requests, PROMPTS, strict=True)}
        active = [request for request in active if lengths[id(request)] < count] + waiting[:1]
        del waiting[:1]
    for request, prompt, sampling in zip(requests, PROMPTS, samplings, strict=True):
        assert request.seq.tokens[len(prompt) :][:count] == alone.run(prompt, count, sampling)[0]
    runs = sum(len(widths) > 1 for lanes in world.lanes.values() for widths in lanes.runs)
    assert runs or isinstance(requests[0].drafting.drafter, SharedExit)  # Halves of the target have no lanes.


def test_requests_that_draft_by_an_engine_verify_with_those_that_do_not() -> None:
    """All calls of drafters run first. Of four requests three fill the lanes, and one runs by its own engine."""
    world = Several()
    drafting, plain = world.method("layer-skip", num_speculative_tokens=3), world.method("plain")
    decoders = [drafting, drafting, plain, plain]
    requests = [world.begin(d, p, Sampling()) for d, p in zip(decoders, PROMPTS, strict=False)]
    world.step(requests)
    (lanes,) = (lanes for lanes in world.lanes.values() if lanes.runs)
    assert lanes.runs == {(4, 4, 1): 1}
    assert [(r.stats.draft_calls, r.stats.target_calls) for r in requests] == [(3, 1), (3, 1), (0, 1), (0, 1)]
    assert [r.stats.engine_seconds >= 1 for r in requests] == [True, True, True, False]


@pytest.mark.parametrize("merges_loops", [True, False])
def test_requests_at_different_loops_of_a_draft_model_share_a_run(merges_loops: bool) -> None:
    """Continuous depth-wise batching. Without it each call is a run, and all of them verify together in both cases."""
    world = Several(merges_loops)
    decoder = world.method("recursive-depths", assistant=True, exit_threshold=0.5)
    requests = [world.begin(decoder, prompt, Sampling()) for prompt in PROMPTS[:LANES]]
    for _ in range(8):
        world.step(requests)
    verifying = next(lanes for model, lanes in world.lanes.items() if model != LOOP)
    assert sum(verifying.runs.values()) == 8
    draftings: list[Any] = [request.drafting for request in requests]
    counts = np.sum([drafting.counts for drafting in draftings], 0)
    assert min(counts) > 0, "a control: some tokens exit after each loop"
    calls = sum(request.stats.draft_calls for request in requests)
    assert calls >= counts[0] + 2 * counts[1]
    if merges_loops:
        drafting = world.lanes[LOOP]
        runs = calls - sum((len(widths) - 1) * count for widths, count in drafting.runs.items())
        assert runs < 0.5 * calls
        assert any(len(loops) > 1 for loops in drafting.loops)
    else:
        assert LOOP not in world.lanes


def test_a_failure_ends_one_request_and_no_other() -> None:
    """A run of several that fails is repeated, call by call."""
    world = Several()

    class Failing(Toy):
        def run(self) -> None:
            if 7 in np.asarray(self.inputs["input_ids"]):
                raise OSError("the ceiling fell")
            super().run()

    decoder = world.method("plain")
    texts = [[*prompt, last] for prompt, last in zip(PROMPTS, (1, 7, 2), strict=False)]
    requests = [world.begin(decoder, text, Sampling()) for text in texts]
    for request in requests:
        for engine in request.verifiers:
            engine._bindings.clear()
            engine._bind = lambda store, block=engine.block: Failing(block, store, world.vocabulary)
    first, second, third = world.step(requests)
    assert isinstance(second, BackendError) and "the ceiling fell" in str(second)
    assert not isinstance(first, Exception) and not isinstance(third, Exception)
    assert [len(r.seq.tokens) - len(text) for r, text in zip(requests, texts, strict=True)] == [1, 0, 1]
