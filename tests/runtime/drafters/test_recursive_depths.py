"""A recursive draft model whose tokens exit after different loops."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from toys import LOOPS, Decoder, World, prompts, step

from specc.runtime.block import LOOP
from specc.runtime.drafters.recursive_depths import RecursiveDepths
from specc.runtime.errors import RecipeError
from specc.runtime.sequence import Sequence

PROMPTS = prompts(8, seed=4)
CACHE = "assistant_loop"


def method(threshold: float, **parameters: Any) -> Decoder:
    return World().method("recursive-depths", assistant=True, exit_threshold=threshold, **parameters)


def counts(decoder: Decoder, prompt: list[int], steps: int = 12) -> list[int]:
    """Decode some steps, and return how many tokens exited after each loop."""
    seq = Sequence(list(prompt), decoder.world.caches)
    decoder.world.prefill.extend(seq.cache, seq.cache.sync(seq.tokens[:-1]))
    request = decoder.open(seq)
    for _ in range(steps):
        step(request)
    drafting: Any = request.drafting
    return list(drafting.counts)


def test_all_tokens_exit_after_the_first_loop_at_a_threshold_of_0_and_none_does_above_1() -> None:
    first, both, last = (np.sum([counts(method(t), prompt) for prompt in PROMPTS], 0) for t in (0, 0.5, 1.1))
    assert first[1] == 0 < first[0] and last[0] == 0 < last[1]
    assert min(both) > 0


def test_a_loop_that_no_token_ran_has_no_rows() -> None:
    decoder = method(0)
    decoder.run(PROMPTS[1], 60)
    assert len(decoder.world.caches[CACHE]) > 60
    assert len(decoder.world.caches[f"{CACHE}:1"]) == 0


@pytest.mark.parametrize("threshold", [0.3, 0.5, 1.1])
def test_rows_that_were_filled_late_are_those_of_a_model_that_ran_all_loops_at_once(threshold: float) -> None:
    decoder = method(threshold)
    decoder.run(PROMPTS[1], 60)
    caches = [decoder.world.caches[name] for name in decoder.drafter.caches]
    assert len(caches) == LOOPS and len(caches[0]) >= len(caches[1]) > len(PROMPTS[1])
    reference = World()
    right = reference.method("recursive-depths", assistant=True, exit_threshold=1.1)
    seq = Sequence([*caches[1].tokens, 0], reference.caches)
    reference.prefill.extend(seq.cache, seq.tokens[:-1])
    step(right.open(seq))
    for cache, name in zip(caches, right.drafter.caches, strict=True):
        rows, whole = len(caches[1]), reference.caches[name]
        assert whole.tokens[:rows] == cache.tokens[:rows]
        ours: Any = cache.store
        whole_store: Any = whole.store
        assert np.array_equal(ours.rows_LC[:, :rows], whole_store.rows_LC[:, :rows])
        assert np.array_equal(cache.states["assistant"][:rows], whole.states["assistant"][:rows])


def test_a_token_behind_an_early_exit_goes_on_in_one_call_with_the_rows_that_are_missing() -> None:
    """The first token exits early, and the second one does not: then the second loop runs both, in one call."""
    decoder = method(0.5)
    widths = []
    for prompt in PROMPTS:
        seq = Sequence(list(prompt), decoder.world.caches)
        decoder.world.prefill.extend(seq.cache, seq.cache.sync(seq.tokens[:-1]))
        calls = decoder.open(seq).drafting.propose(4)
        try:
            call = next(calls)
            while True:
                if call.inputs[LOOP][0].argmax() == 1:
                    widths.append(len(call.tokens))
                call = calls.send(call.run())
        except StopIteration:
            pass
    assert 1 in widths and set(widths) & set(range(2, 5))


def test_a_text_that_changed_drops_the_rows_of_all_loops() -> None:
    decoder = method(1.1)
    text = PROMPTS[1]
    first = decoder.run(text, 30)[0]
    assert decoder.run([*text[:5], (text[5] + 1) % 24, *text[6:]], 30)[0] != first
    assert decoder.run(text, 30)[0] == World().method("plain").run(text, 30)[0] == first


@pytest.mark.parametrize("threshold", [-0.1, 2.1, "high", True, None, float("nan")])
def test_a_threshold_out_of_range_is_refused(threshold: Any) -> None:
    engines = method(0.5).drafter.engines
    draft, fill, prefill = engines
    with pytest.raises(RecipeError, match=r"exit_threshold is .*; give 0 to 1"):
        RecursiveDepths(draft, fill, prefill, exit_threshold=threshold)


def test_an_engine_that_runs_all_loops_is_refused() -> None:
    world = World()
    engine = world.method("draft-model", assistant=True).drafter.engine
    with pytest.raises(RecipeError, match="compile the bundle again"):
        RecursiveDepths(engine, engine, engine)
