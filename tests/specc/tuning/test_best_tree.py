"""The tree that pays: more levels and slots where they are cheap, fewer where they are not."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from specc.runtime.tree import Tree
from specc.tuning.best_tree import Costs, best_tree, expected, speed

CHEAP, DEAR = Costs({1: 1.0, 16: 1.0}), Costs({n: 1.0 + 3.0 * (n - 1) for n in range(1, 17)})


def test_free_slots_are_all_used_and_dear_ones_hardly() -> None:
    assert best_tree((0.6, 0.2), CHEAP, 6).slots == 16
    assert best_tree((0.6, 0.2), DEAR, 6).slots == 2


def test_dear_levels_make_flat_trees() -> None:
    assert best_tree((0.6, 0.2), Costs(CHEAP.widths, call=10.0), 6).depth.max() == 1


def test_a_width_that_was_not_measured_costs_what_the_next_one_does() -> None:
    assert [Costs({1: 1.0, 12: 2.0, 24: 3.0}).verify(n) for n in (1, 2, 12, 13, 24)] == [1.0, 2.0, 2.0, 3.0, 3.0]


def test_drafting_costs_a_call_for_so_many_tokens_of_a_level() -> None:
    tree = Tree((-1, 0, 0, 0, 1, 2, 3, 4))  # one, three and one token have children
    assert [Costs({8: 1.0}, call=1.0, slots=n).draft(tree) for n in (1, 2, 4)] == [5.0, 4.0, 3.0]


@given(st.lists(st.sampled_from([0.1, 0.3, 0.5, 0.7]), min_size=1, max_size=3), st.integers(2, 12))
def test_no_tree_of_the_search_is_faster_than_the_one_it_returns(rates: list[float], most: int) -> None:
    costs = Costs({1: 1.0, 4: 1.2, most: 2.0} if most > 4 else {1: 1.0, most: 2.0}, call=0.1)
    choice = best_tree(rates, costs, 4)
    for slots in range(2, most + 1):
        tree = Tree.best_first(rates, slots, 4)
        assert speed(tree, rates, costs) <= speed(choice, rates, costs) + 1e-9


def test_expected_tokens_of_a_chain_are_a_geometric_sum() -> None:
    assert expected(Tree.chain(3), (0.5,)) == 1.75
