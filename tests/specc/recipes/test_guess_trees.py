"""Trees of tokens and guesses: what the algorithm of Parallel Prompt Decoding says, beside a simulation of it."""

from __future__ import annotations

import itertools
import random

import pytest

from specc.recipes.guess_trees import StateTree, expected, reaches, state_trees
from specc.runtime.tree import Tree

RATES = [[0.5, 0.2, 0.1], [0.4, 0.2, 0.1], [0.3, 0.2]]


def test_guesses_stand_behind_their_tokens_in_chains() -> None:
    topology = StateTree(Tree((-1, 0, 0)), (2, 0, 1)).topology("ppd")
    assert (topology.parents, topology.tokens, topology.head) == ((-1, 0, 0, 0, 3, 2), 3, "ppd")
    assert topology.guesses == ((3, 4), (), (5,))


def test_a_state_has_as_many_levels_as_guesses_and_as_many_slots_as_are_allowed() -> None:
    states = state_trees(RATES, 8, 8)
    assert [int(state.tree.depth.max()) for state in states] == [0, 1, 2, 3]
    assert [state.tree.slots for state in states] == [1, 4, 9, 9]  # One level has three ranks.
    assert [sum(state.guesses) for state in states] == [3, 8, 8, 8]


def test_the_chances_of_the_last_accepted_token_sum_up_to_one() -> None:
    for state in state_trees(RATES, 6, 8):
        assert sum(state.last(RATES)) == pytest.approx(1)
        assert min(state.last(RATES)) >= 0


def test_the_expected_tokens_are_those_of_a_simulation() -> None:
    states, rng, state, tokens = state_trees(RATES, 6, 7), random.Random(0), 0, 0
    steps = 40000
    for _ in range(steps):
        tree, slot = states[state].tree, 0
        while True:
            draw, rates = rng.random(), RATES[int(tree.depth[slot])] if tree.depth[slot] < len(RATES) else []
            sums = list(itertools.accumulate(rates))
            rank = next((rank for rank, total in enumerate(sums) if draw < total), len(sums))
            if rank >= len(tree.children[slot]):
                break
            slot = tree.children[slot][rank]
        tokens += 1 + int(tree.depth[slot])
        state = states[state].guesses[slot]
    assert tokens / steps == pytest.approx(expected(states, RATES), rel=0.02)


def test_no_other_distribution_of_two_guesses_is_better_for_the_next_step() -> None:
    """Greedy removal leaves the guesses where their tokens are likeliest to be the last accepted."""
    rates = [[0.6, 0.2]]
    states = state_trees(rates, 2, 2)
    last, gains = states[1].last(rates), [sum(reaches(state.tree, rates)) for state in states]
    values = {
        counts: sum(chance * gains[guesses] for chance, guesses in zip(last, counts, strict=True))
        for counts in itertools.product((0, 1), repeat=3)
        if sum(counts) == 2
    }
    assert values[states[1].guesses] == max(values.values())


def test_more_slots_give_more_tokens() -> None:
    few, many = (expected(state_trees(RATES, nodes, 3 * nodes), RATES) for nodes in (2, 6))
    assert 1 < few < many
