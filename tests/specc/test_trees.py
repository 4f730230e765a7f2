"""The tree that pays: more levels and slots where they are cheap, fewer where they are not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from specc.runtime.tree import Tree
from specc.trees import best_tree, expected, speed

CHEAP, DEAR = {1: 1.0, 32: 1.0}, {1: 1.0, 32: 100.0}


def test_free_slots_are_all_used_and_dear_ones_hardly() -> None:
    assert best_tree((0.6, 0.2), CHEAP, 0.0, 16, 6).slots == 16
    assert best_tree((0.6, 0.2), DEAR, 0.0, 16, 6).slots == 2


def test_dear_levels_make_flat_trees() -> None:
    assert best_tree((0.6, 0.2), CHEAP, 10.0, 16, 6).depth.max() == 1


@given(st.lists(st.sampled_from([0.1, 0.3, 0.5, 0.7]), min_size=1, max_size=3), st.integers(2, 12))
def test_no_tree_of_the_search_is_faster_than_the_one_it_returns(rates, most) -> None:
    chosen = best_tree(rates, {1: 1.0, 12: 2.0}, 0.1, most, 4)
    for slots in range(2, most + 1):
        assert (
            speed(Tree.best_first(rates, slots, 4), rates, {1: 1.0, 12: 2.0}, 0.1)
            <= speed(chosen, rates, {1: 1.0, 12: 2.0}, 0.1) + 1e-9
        )


def test_expected_tokens_of_a_chain_are_a_geometric_sum() -> None:
    assert expected(Tree.chain(3), (0.5,)) == 1.75
