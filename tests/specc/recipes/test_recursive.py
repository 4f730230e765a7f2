"""The methods that draft by a recursive model."""

from __future__ import annotations

from typing import Any

import pytest

from specc.recipes.entry import Facts
from specc.recipes.recursive import RELAXED_RECURSIVE, RELAXED_RECURSIVE_DEPTHS
from specc.runtime.block import Layers
from specc.runtime.errors import RecipeError

FACTS = Facts(12, 500, assistant=True, assistant_layers=12, assistant_loops=3)


def layers(facts: Facts, **values: int) -> list[Layers]:
    """Return the layers of the engines that draft, and of those that read the prompt."""
    engines = RELAXED_RECURSIVE.plan(RELAXED_RECURSIVE.settle(values), facts).engines
    assert engines["prefill"].last_row and {block.cache for block in engines.values()} == {"assistant"}
    return [engines["draft"].layers, engines["prefill"].layers]


def test_a_draft_ends_after_its_loops_and_so_does_the_prompt() -> None:
    assert layers(FACTS) == [Layers(exit_after=4)] * 2
    assert layers(FACTS, draft_loops=2) == [Layers(exit_after=8)] * 2
    assert layers(FACTS, draft_loops=3) == [Layers()] * 2


def test_an_ordinary_draft_model_has_one_loop() -> None:
    ordinary = Facts(12, 500, assistant=True, assistant_layers=4)
    assert layers(ordinary) == [Layers()] * 2
    with pytest.raises(RecipeError, match="draft_loops is 2; give a whole number from 1 to 1"):
        layers(ordinary, draft_loops=2)
    with pytest.raises(RecipeError, match="draft_loops is 4; give a whole number from 1 to 3"):
        layers(FACTS, draft_loops=4)


def test_all_engines_of_one_loop_return_what_the_next_loop_reads() -> None:
    values = RELAXED_RECURSIVE_DEPTHS.settle({"num_speculative_tokens": 5})
    engines = RELAXED_RECURSIVE_DEPTHS.plan(values, FACTS).engines
    assert {role: block.slots for role, block in engines.items()} == {"draft": 1, "fill": 6, "prefill": 64}
    for block in engines.values():
        assert block.inputs == ("state", "loop") and f"state:{block.model}" in block.outputs
        assert (block.layers, block.cache) == (Layers(), "assistant_loop")


@pytest.mark.parametrize("threshold", [-1, 2.1, "high", None, True, float("nan")])
def test_a_threshold_out_of_range_is_refused_before_a_model_is_loaded(threshold: Any) -> None:
    values = RELAXED_RECURSIVE_DEPTHS.settle({}) | {"exit_threshold": threshold}
    with pytest.raises(RecipeError, match=r"exit_threshold is .*; give 0 to 1"):
        RELAXED_RECURSIVE_DEPTHS.plan(values, FACTS)
