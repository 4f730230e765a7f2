"""Drafts by the shallow half of the target, which its deep half verifies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from toys import LAYERS, Decoder, World, prompts, propose, step

from specc.recipes import prefill
from specc.recipes.entry import Facts, HeadFacts
from specc.recipes.exits import KANGAROO, LAYERSKIP
from specc.runtime.block import Layers
from specc.runtime.drafters.shared_exit import SharedExit
from specc.runtime.errors import RecipeError
from specc.runtime.loop import Decoding
from specc.runtime.sampling import Sampling
from specc.runtime.sequence import Sequence
from specc.runtime.stats import Stats

PROMPTS = prompts(6, seed=2)
FACTS = Facts(layers=8, vocab_size=500)


def decoder(name: str = "layerskip", **values: Any) -> Decoder:
    return World().method(name, **values)


@pytest.mark.parametrize("name", ["layerskip", "kangaroo"])
def test_a_token_passes_each_layer_once(name: str) -> None:
    """The shallow half runs each slot of a draft in a call of its own, and the deep half all of them in one."""
    method = decoder(name)
    drafter, seq = method.drafter, Sequence(list(PROMPTS[0]), method.world.caches, Sampling())
    calls, slots, steps = drafter.shallow.calls, 0, 0
    for _, (draft, _) in zip(range(30), method.steps(seq), strict=False):
        slots, steps = slots + draft.tree.slots, steps + 1
        assert draft.by in drafter.deep and len(draft.inputs["hidden"]) == draft.tree.slots
    assert drafter.shallow.calls - calls == slots
    assert sum(engine.calls for engine in drafter.deep) == steps
    assert sum(engine.calls for engine in method.verifiers) == 0


def test_the_narrowest_deep_half_verifies() -> None:
    method = decoder(num_speculative_tokens=7)
    seq = Sequence(list(PROMPTS[1]), method.world.caches, Sampling(), limit=len(PROMPTS[1]) + 4)
    seq.cache.sync([])
    method.world.prefill.extend(seq.cache, seq.tokens[:-1])
    draft = propose(method.drafter.open(seq))
    assert draft.by is not None and draft.tree.slots == draft.by.slots == 4
    assert [engine.slots for engine in method.drafter.deep] == [1, 4, 6, 8]


def test_without_room_for_a_draft_the_whole_target_runs() -> None:
    method = decoder()
    seq = Sequence(list(PROMPTS[1]), method.world.caches, Sampling(), limit=len(PROMPTS[1]) + 1)
    method.world.prefill.extend(seq.cache, seq.cache.sync(seq.tokens[:-1]))
    draft = propose(method.drafter.open(seq))
    assert draft.tokens == (PROMPTS[1][-1],) and draft.by is None and not draft.inputs


def test_states_of_another_slot_would_show() -> None:
    """The control of the tests of all drafters: a deep half that reads wrong states gives other tokens."""
    method = decoder()
    right, _ = World().method("plain").run(PROMPTS[2], 40)
    for engine in method.drafter.deep:
        read = engine.runner.run

        def run(runner: Any = engine.runner, read: Any = read) -> None:
            runner.inputs["hidden"][:] = np.roll(runner.inputs["hidden"], 1)
            read()

        engine.runner.run = run
    assert method.run(PROMPTS[2], 40)[0] != right


def test_a_request_at_one_width_runs_the_whole_target() -> None:
    method = decoder()
    seq = Sequence(list(PROMPTS[3]), method.world.caches, Sampling())
    method.world.prefill.extend(seq.cache, seq.cache.sync(seq.tokens[:-1]))
    widest = method.verifiers[-1:]
    request = Decoding(
        seq=seq,
        drafting=method.drafter.open(seq),
        verifiers=widest,
        accept=method.accept,
        stats=Stats(recipe="toy"),
        one_width=True,
    )
    for _ in range(12):
        step(request)
    assert sum(engine.calls for engine in method.drafter.deep) == 0 and widest[0].calls == 12
    right, _ = World().method("plain").run(PROMPTS[3], 12)
    assert seq.tokens[len(PROMPTS[3]) :][:12] == right


def test_halves_that_do_not_meet_are_refused() -> None:
    world = World()
    blocks = LAYERSKIP.plan(LAYERSKIP.settle({"assistant_early_exit": 2}), Facts(LAYERS, 24)).engines
    other = LAYERSKIP.plan(LAYERSKIP.settle({"assistant_early_exit": 3}), Facts(LAYERS, 24)).engines
    shallow, deep = world.engine(blocks["shallow"]), world.engine(other["deep_1"])
    none: dict[str, Any] = {}
    for engines in ({"deep_0": deep}, none):
        with pytest.raises(RecipeError, match="the halves of the target do not meet at one layer"):
            SharedExit(shallow, **engines)


def test_the_plan_splits_the_target() -> None:
    blocks = KANGAROO.plan(KANGAROO.settle({}), FACTS)
    shallow = blocks.engines["shallow"]
    assert shallow.layers == Layers(exit_after=2) and "hidden:1" in shallow.outputs and shallow.slots == 1
    deep = [blocks.engines[f"deep_{i}"] for i in range(len(blocks.verify))]
    assert [block.slots for block in deep] == [block.slots for block in blocks.verify] == [1, 4, 6, 7]
    assert all(block.layers == Layers(start_after=2) and block.inputs == ("hidden",) for block in deep)
    assert blocks.parts == blocks.engines.keys()
    assert blocks.arguments == {"num_speculative_tokens": 6, "assistant_confidence_threshold": 0.6}


def test_the_rows_of_an_adapter_are_those_of_the_text() -> None:
    """Drafts are those of a request that begins with the whole text, whatever was accepted and rejected before."""
    method = decoder("kangaroo", assistant_confidence_threshold=0.0)
    drafter, seq = method.drafter, Sequence(list(PROMPTS[4]), method.world.caches, Sampling())
    accepted = set()
    for _, (draft, decision) in zip(range(20), method.steps(seq), strict=False):
        accepted.add(len(decision.slots) - 1)
        world = World()
        other = world.method("kangaroo", assistant_confidence_threshold=0.0)
        fresh = Sequence(list(seq.tokens), world.caches, Sampling())
        world.prefill.extend(fresh.cache, fresh.cache.sync(fresh.tokens[:-1]))
        expected = propose(other.drafter.open(fresh))
        assert propose(drafter.open(seq)).tokens == expected.tokens
        assert draft.tokens != expected.tokens
    assert {0, 1, 6} <= accepted


def test_an_adapter_runs_once_for_each_drafted_token_and_for_the_text() -> None:
    method = decoder("kangaroo", assistant_confidence_threshold=0.0)
    drafter, seq = method.drafter, Sequence(list(PROMPTS[5]), method.world.caches, Sampling())
    adapter, feed = drafter.adapter
    drafted = sum(draft.tree.slots - 1 for _, (draft, _) in zip(range(20), method.steps(seq), strict=False))
    assert adapter.calls == drafted and 1 <= feed.calls <= 20


def test_without_states_an_adapter_drafts_nothing_and_one_engine_of_two_is_refused() -> None:
    method = decoder("kangaroo")
    seq = Sequence(list(PROMPTS[1]), method.world.caches, Sampling())
    method.world.engine(prefill()).extend(seq.cache, seq.cache.sync(seq.tokens[:-1]))
    assert propose(method.drafter.open(seq)).tokens == (PROMPTS[1][-1],)
    deep = {f"deep_{number}": engine for number, engine in enumerate(method.drafter.deep)}
    with pytest.raises(RecipeError, match="needs two, adapter and feed; compile the bundle again"):
        SharedExit(method.drafter.shallow, adapter=method.drafter.adapter[0], **deep)


def test_the_exit_is_where_the_adapter_was_trained() -> None:
    facts = Facts(layers=8, vocab_size=500, heads={"kangaroo": HeadFacts(recurrent=False, taps=(2,))})
    blocks = KANGAROO.plan(KANGAROO.settle({}), facts)
    assert blocks.engines["shallow"].layers == Layers(exit_after=3)
    assert blocks.engines["deep_0"].layers == Layers(start_after=3)
    assert "state:kangaroo" in blocks.engines["deep_0"].outputs
    assert blocks.engines["adapter"].cache == blocks.engines["feed"].cache == "kangaroo"
    assert KANGAROO.plan(KANGAROO.settle({"assistant_early_exit": 3}), facts) == blocks
    with pytest.raises(RecipeError, match="is 2, and the adapter was trained behind 3 layers; give 3, or leave it out"):
        KANGAROO.plan(KANGAROO.settle({"assistant_early_exit": 2}), facts)
