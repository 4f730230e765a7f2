"""The nodes of a growing tree: their values, and which of them are drafted."""

from __future__ import annotations

import numpy as np
import pytest

from specc.runtime.draft import Outputs
from specc.runtime.draft_candidates import Candidates
from specc.runtime.node_budget import NodeBudget


def outputs(*rows: list[tuple[int, float]]) -> Outputs:
    """Return outputs with these likeliest tokens and probabilities in each row."""
    ids = np.array([[token for token, _ in row] for row in rows])
    logprobs = np.log(np.array([[p for _, p in row] for row in rows], np.float32))
    states = np.arange(len(rows), dtype=np.float32)[:, None]
    return Outputs(ids[:, 0].copy().data, None, ids, logprobs, next_state_NS=states)


def test_nodes_are_ranked_by_the_product_of_the_probabilities_on_their_way() -> None:
    candidates = Candidates(9, NodeBudget(3))
    candidates.add_level([0], outputs([(1, 0.6), (2, 0.3), (3, 0.05)]))
    assert candidates.best_of_last_level(2) == [1, 2]
    candidates.add_level([1, 2], outputs([(4, 0.9), (5, 0.05), (6, 0.01)], [(7, 0.5), (8, 0.4), (9, 0.1)]))
    draft = candidates.draft()
    assert draft.tokens == (9, 1, 2, 4) and draft.tree.parents == (-1, 0, 0, 1)
    assert candidates.states[2].tolist() == [1]


def test_a_level_without_one_of_the_best_nodes_ends_the_tree() -> None:
    candidates = Candidates(9, NodeBudget(2))
    candidates.add_level([0], outputs([(1, 0.5), (2, 0.49)]))
    candidates.add_level([1], outputs([(3, 0.3), (4, 0.2)]))
    assert candidates.best_of_last_level(4) == []


def test_of_equal_nodes_the_parent_comes_first() -> None:
    candidates = Candidates(9, NodeBudget(1))
    candidates.add_level([0], outputs([(1, 1.0)]))
    candidates.add_level([1], outputs([(2, 1.0)]))
    assert candidates.draft().tokens == (9, 1)


def test_a_path_and_the_heads_nodes_are_one_tree_and_shares_of_one_node_add_up() -> None:
    candidates = Candidates(9, NodeBudget(4), share=0.5)
    candidates.add_path([1, 4, 8], [0.5, 0.4, 0.1])
    candidates.add_level([0], outputs([(2, 0.6), (1, 0.3)]))
    assert candidates.tokens == [9, 1, 4, 8, 2] and candidates.parents == [-1, 0, 1, 2, 0]
    assert candidates.values == pytest.approx([1, 0.65, 0.4, 0.1, 0.3])
    candidates.add_level([1, 4], outputs([(4, 0.5), (7, 0.2)], [(5, 0.9), (6, 0.1)]))
    assert candidates.values == pytest.approx([1, 0.65, 0.475, 0.1, 0.3, 0.03, 0.27, 0.03])
    draft = candidates.draft()
    assert draft.tokens == (9, 1, 4, 2, 5) and draft.tree.parents == (-1, 0, 1, 0, 3)


def test_only_nodes_that_the_head_guessed_are_run_next() -> None:
    """Those of a copy alone are verified, and the head does not go on from them."""
    candidates = Candidates(9, NodeBudget(4), share=0.2)
    candidates.add_path([1, 4], [0.8, 0.7])
    candidates.add_level([0], outputs([(2, 0.6), (1, 0.3)]))
    assert candidates.best_of_last_level(4) == [1, 3] and candidates.best_of_last_level(1) == [1]
