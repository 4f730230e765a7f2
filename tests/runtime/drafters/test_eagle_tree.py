"""EAGLE-2's trees: the likeliest nodes, in few calls."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from toys import World, prompts

from specc.runtime.draft import Outputs
from specc.runtime.drafters.eagle_tree import EagleTree, _Candidates
from specc.runtime.errors import RecipeError

PROMPT = prompts(3)[2]


def outputs(*rows: list[tuple[int, float]]) -> Outputs:
    """Return outputs with these likeliest tokens and probabilities in each row."""
    ids = np.array([[token for token, _ in row] for row in rows])
    logprobs = np.log(np.array([[p for _, p in row] for row in rows], np.float32))
    states = np.arange(len(rows), dtype=np.float32)[:, None]
    return Outputs(ids[:, 0].copy().data, None, ids, logprobs, next_state_NS=states)


def test_nodes_are_ranked_by_the_product_of_the_probabilities_on_their_way() -> None:
    candidates = _Candidates(9, 3)
    candidates.add([0], outputs([(1, 0.6), (2, 0.3), (3, 0.05)]))
    assert candidates.best_of_last_level(2) == [1, 2]
    candidates.add([1, 2], outputs([(4, 0.9), (5, 0.05), (6, 0.01)], [(7, 0.5), (8, 0.4), (9, 0.1)]))
    draft = candidates.draft()
    assert draft.tokens == (9, 1, 2, 4) and draft.tree.parents == (-1, 0, 0, 1)
    assert candidates.states[2].tolist() == [1]


def test_a_level_without_one_of_the_best_nodes_ends_the_tree() -> None:
    candidates = _Candidates(9, 2)
    candidates.add([0], outputs([(1, 0.5), (2, 0.49)]))
    candidates.add([1], outputs([(3, 0.3), (4, 0.2)]))
    assert candidates.best_of_last_level(4) == []


def test_of_equal_nodes_the_parent_comes_first() -> None:
    candidates = _Candidates(9, 1)
    candidates.add([0], outputs([(1, 1.0)]))
    candidates.add([1], outputs([(2, 1.0)]))
    assert candidates.draft().tokens == (9, 1)


@pytest.mark.parametrize(("nodes", "depth"), [(1, 1), (3, 5), (11, 1), (11, 3), (23, 6)])
def test_a_tree_has_as_many_nodes_and_levels_as_it_may(nodes: int, depth: int) -> None:
    decoder = World().method("eagle3-tree", num_speculative_tokens=nodes, max_depth=depth)
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
