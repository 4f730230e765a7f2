"""EAGLE-2's trees: the likeliest nodes, in few calls."""

from __future__ import annotations

from typing import Any

import pytest
from toys import World, prompts

from specc.runtime.drafters.eagle_tree import EagleTree
from specc.runtime.errors import RecipeError

PROMPT = prompts(3)[2]


@pytest.mark.parametrize(("nodes", "depth"), [(1, 1), (3, 5), (11, 1), (11, 3), (23, 6)])
def test_a_tree_has_as_many_nodes_and_levels_as_it_may(nodes: int, depth: int) -> None:
    decoder = World().method("eagle3-tree", num_speculative_tokens=nodes, max_depth=depth, step_costs=[])
    deepest = 0
    for draft, calls in decoder.drafts(PROMPT, steps=15):
        assert draft.tree.slots == 1 + min(nodes, 8 if depth == 1 else nodes)
        deepest = max(deepest, int(draft.tree.depth.max()))
        siblings = list(zip(draft.tree.parents, draft.tokens, strict=True))
        assert len(set(siblings)) == len(siblings) and calls <= depth
    assert 1 <= deepest <= depth


@pytest.mark.parametrize("parameters", [{"num_speculative_tokens": 0}, {"max_depth": 0}, {"max_depth": 1.5}])
def test_a_parameter_out_of_range_is_refused(parameters: dict[str, Any]) -> None:
    engine = World().prefill
    with pytest.raises(RecipeError, match=f"^{next(iter(parameters))} is "):
        EagleTree(engine, engine, engine, **parameters)


def test_with_costs_a_tree_has_only_the_nodes_that_pay() -> None:
    def sizes(price: float) -> list[int]:
        costs = [(1, 1.0), (4, 1.0 + 3 * price), (12, 1.0 + 11 * price)]
        decoder = World().method("eagle3-tree", step_costs=costs)
        return [draft.tree.slots for draft, _ in decoder.drafts(PROMPT, steps=15)]

    assert set(sizes(1e-6)) == {12} and set(sizes(10.0)) == {1}
    assert {1, 12} & set(sizes(0.08)) == set() and max(sizes(0.08)) <= 4
