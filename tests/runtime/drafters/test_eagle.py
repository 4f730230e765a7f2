"""Chains by a trained head: what they cost, where they end, and what they stand on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from toys import World, prompts

from specc.runtime.drafters.eagle import Eagle
from specc.runtime.errors import RecipeError
from specc.runtime.sequence import Sequence

PROMPT = prompts(3)[2]


@pytest.mark.parametrize("count", [1, 3])
def test_a_draft_costs_a_call_a_token_and_the_first_also_runs_what_was_accepted(count: int) -> None:
    world = World()
    decoder = world.method("eagle3", num_speculative_tokens=count)
    seq = Sequence(list(PROMPT), world.caches)
    calls = 0
    for (draft, _), _ in zip(decoder.steps(seq), range(20), strict=False):
        total = sum(engine.calls for engine in decoder.drafter.engines)
        first = -(-(len(PROMPT) - 1) // 64) if not calls else 1
        assert draft.tree.slots == 1 + count and total - calls == first + count - 1
        calls = total


def test_it_ends_after_a_token_of_little_confidence() -> None:
    decoder = World().method("eagle3", num_speculative_tokens=4, assistant_confidence_threshold=0.5)
    lengths = {draft.tree.slots for draft, _ in decoder.drafts(PROMPT)}
    assert lengths > {2, 5}


def test_each_token_stands_on_the_state_that_the_head_returned_before() -> None:
    """With states of zeros, other tokens are drafted: the toy's logits depend on them a little."""

    def drafts(world: World) -> list[tuple[int, ...]]:
        return [draft.tokens for draft, _ in world.method("eagle3").drafts(PROMPT, steps=30)]

    right, wrong = drafts(World()), World()
    engine = wrong.engine

    def without_states(block: Any) -> Any:
        new = engine(block)
        if block.inputs and not block.last_row:
            run = new.runner.run

            def run_on_zeros() -> None:
                new.runner.inputs["state"][:] = 0
                run()

            new.runner.run = run_on_zeros
        return new

    wrong.engine = without_states  # type: ignore[method-assign]
    assert drafts(wrong) != right


def test_it_drafts_nothing_where_nothing_is_worth_drafting_and_runs_nothing() -> None:
    world = World()
    decoder = world.method("eagle3")
    seq = Sequence(list(PROMPT), world.caches, limit=len(PROMPT) + 1)
    draft, _ = next(decoder.steps(seq))
    assert draft.tokens == (PROMPT[-1],) and not any(engine.calls for engine in decoder.drafter.engines)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"num_speculative_tokens": 0}, "num_speculative_tokens is 0"),
        ({"assistant_confidence_threshold": 2}, "assistant_confidence_threshold is 2"),
    ],
)
def test_a_parameter_out_of_range_is_refused(parameters: dict[str, Any], message: str) -> None:
    engine = World().prefill
    with pytest.raises(RecipeError, match=message):
        Eagle(engine, engine, engine, **parameters)


def test_the_toy_head_reads_states() -> None:
    """The control of the tests above."""
    world = World()
    decoder = world.method("eagle3")
    list(decoder.drafts(PROMPT, steps=2))
    assert np.any(decoder.drafter.engine.runner.inputs["state"])
