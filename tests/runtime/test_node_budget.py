"""How many nodes of a tree pay, computed by hand."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from specc.runtime.errors import RecipeError
from specc.runtime.node_budget import NodeBudget

COSTS = [(1, 1.0), (3, 1.2), (5, 1.5)]


def test_without_costs_the_likeliest_nodes_are_taken_and_of_equals_the_earlier() -> None:
    assert NodeBudget(3).best([1.0, 0.2, 0.5, 0.2, 0.9]) == [4, 2, 1]
    assert NodeBudget(9).best([1.0, 0.2]) == [1] and NodeBudget(9).best([1.0]) == []


@pytest.mark.parametrize(
    ("values", "count"),
    [
        ([0.05, 0.05, 0.05, 0.05], 0),  # 1.1 / 1.2 and 1.2 / 1.5 are less than 1.
        ([0.3, 0.1], 2),  # 1.4 / 1.2 is more than 1.3 / 1.2.
        ([0.3, 0.2, 0.1, 0.1], 2),  # 1.5 / 1.2 is more than 1.7 / 1.5.
        ([0.9, 0.8, 0.8, 0.7], 4),  # 4.2 / 1.5 is more than 2.7 / 1.2.
    ],
)
def test_with_costs_a_tree_has_the_nodes_that_give_most_tokens_for_its_time(values: list[float], count: int) -> None:
    assert NodeBudget(4, COSTS).best([1.0, *values]) == list(range(1, 1 + count))


@given(st.lists(st.floats(0, 1), max_size=8), st.lists(st.floats(0.1, 3), min_size=1, max_size=5))
def test_no_other_number_of_nodes_gives_more(values: list[float], costs: list[float]) -> None:
    pairs = [(1, 1.0), *((2 + i, cost) for i, cost in enumerate(costs))]
    order = sorted(values, reverse=True)[: len(costs)]
    speeds = [(1 + sum(order[:count])) / pairs[count][1] for count in range(1 + len(order))]
    count = len(NodeBudget(len(costs), pairs).best([1.0, *values]))
    assert speeds[count] == pytest.approx(max(speeds))


@pytest.mark.parametrize(
    "costs",
    [
        3,
        [3],
        [(1,)],
        [(1, "x")],
        [(1.0, 1.0)],
        [(True, 1.0)],
        [(2, 1.0)],
        [(1, 1.0), (1, 2.0)],
        [(1, 0.0)],
        [(1, 1e999)],
    ],
)
def test_costs_that_are_none_are_refused_in_one_line(costs: Any) -> None:
    with pytest.raises(RecipeError, match=r"^step_costs is .*; give pairs of slots and a cost"):
        NodeBudget(1, costs)


def test_costs_that_end_before_the_widest_step_are_refused() -> None:
    with pytest.raises(RecipeError, match="step_costs ends at 5 slots; 5 tokens fill 6: give the cost of 6 slots too"):
        NodeBudget(5, COSTS)
