"""Trees: what a parent vector means, and which trees the builders build."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import FrozenInstanceError
from itertools import permutations, product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from specc.runtime.errors import TreeError
from specc.runtime.tree import Tree

trees = st.lists(st.integers(0, 99), max_size=20).map(lambda xs: Tree((-1, *(x % i for i, x in enumerate(xs, 1)))))
rates = st.lists(st.sampled_from([0.9, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05]), min_size=1, max_size=3).map(
    lambda xs: sorted(xs, reverse=True)
)


def ancestors(tree: Tree, slot: int) -> list[int]:
    """Return `slot` and all slots above it."""
    return [slot, *ancestors(tree, tree.parents[slot])] if slot >= 0 else []


@given(trees)
def test_a_slot_sees_its_ancestors_and_itself(tree: Tree) -> None:
    for slot, sees in enumerate(tree.mask):
        assert set(np.flatnonzero(sees)) == set(ancestors(tree, slot))
        assert tree.depth[slot] == len(ancestors(tree, slot)) - 1


@given(trees)
def test_children_and_ranks_are_the_parents_read_the_other_way(tree: Tree) -> None:
    edges = {(parent, slot) for slot, parent in enumerate(tree.parents[1:], 1)}
    assert {(parent, slot) for parent, below in enumerate(tree.children) for slot in below} == edges
    assert all(tree.children[parent][tree.rank[slot]] == slot for parent, slot in edges)


@given(trees)
def test_the_literal_of_a_tree_makes_the_same_tree(tree: Tree) -> None:
    """Slots may change places, paths may not."""
    again = Tree.from_paths(tree.paths)
    assert set(again.paths) == set(tree.paths)
    assert list(again.paths) == sorted(tree.paths, key=lambda p: (len(p), p))
    assert again.slots == tree.slots
    assert Tree.from_paths(again.paths[::-1]) == again


def test_medusas_smallest_example() -> None:
    """[0], [1] below the pending token, [0, 0] below the first of them."""
    tree = Tree.from_paths([(0,), (1,), (0, 0)])
    assert tree.parents == (-1, 0, 0, 1)
    assert tree.mask.tolist() == [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 1, 0, 1]]
    assert tree.depth.tolist() == [0, 1, 1, 2]
    assert tree.rank == (0, 0, 1, 0)
    assert tree.paths == ((0,), (1,), (0, 0))


@pytest.mark.parametrize(
    ("literal", "named"),
    [
        ([()], "()"),
        ([(0,), (-1,)], "(-1,) is not a path"),
        ([(0,), (0,)], "[0]"),
        ([(1,)], "[1]"),
        ([(0,), (2,)], "[2]"),
        ([(0, 0)], "[0, 0]"),
        ([(0,), (0, 1)], "[0, 1]"),
        ([(0,), ("1",)], "'1'"),
        ([(0,), (0, 0.5)], "0.5"),
        ([(True,)], "True"),
        ([(0,), (0, [0])], "[0]"),
        ([0], "0"),
        ([None], "None"),
        (["ab"], "'ab'"),
        ("ab\n", r"'ab\n'"),
        (7, "7"),
        ({"a": 1}, "{'a': 1}"),
    ],
)
def test_a_malformed_literal_is_named_in_one_line(literal: Any, named: str) -> None:
    with pytest.raises(TreeError) as e:
        Tree.from_paths(literal)
    assert named in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("parents", [(), (0,), (-1, -1), (-1, 1), (-1, 0, 2), (-1, 0, -1), (-1, "0"), (-1, 0.0)])
def test_a_parent_vector_that_is_not_a_tree_is_refused(parents: Any) -> None:
    with pytest.raises(TreeError) as e:
        Tree(parents)
    assert repr(parents[-1] if len(parents) > 1 else parents) in str(e.value) and "\n" not in str(e.value)


def test_the_refusal_says_which_parents_there_could_be() -> None:
    with pytest.raises(TreeError) as e:
        Tree((-1, 0, 2))
    assert str(e.value) == "not a tree: slot 2 has parent 2; give it one of 0..1"


def test_trees_are_values_and_chains_are_made_once() -> None:
    chain = Tree.chain(3)
    assert chain == Tree((-1, 0, 1)) and chain is Tree.chain(3) is chain.chain(3)
    with pytest.raises(FrozenInstanceError):
        setattr(chain, "parents", (-1,))  # noqa: B010


def expected_acceptance(tree: Tree, rates: list[float]) -> float:
    """Return the mean of accepted tokens, if a child of rank r is accepted with `rates[r]`: the sum over all nodes."""
    return float(sum(np.prod([rates[r] for r in path]) for path in tree.paths))


def every_tree(slots: int) -> Iterator[Tree]:
    """Yield every tree of so many slots."""
    for parents in product(*(range(i) for i in range(1, slots))):
        yield Tree((-1, *parents))


def all_trees(slots: int, widest: int, depth: int) -> list[Tree]:
    """Return every tree of so many slots, with so many children a slot and so many levels at most."""
    return [t for t in every_tree(slots) if max(t.rank) < widest and t.depth.max() <= depth]


SIZES = product(range(2, 7), (1, 2, 3), (2, 5))
ALL = {(slots, widest, depth): all_trees(slots, widest, depth) for slots, widest, depth in SIZES}


@given(rates, st.integers(2, 6), st.sampled_from([2, 5]))
def test_best_first_finds_the_best_of_all_trees(rates: list[float], slots: int, depth: int) -> None:
    tree = Tree.best_first(rates, slots, depth)
    others = ALL[slots, len(rates), depth]
    if others:
        assert tree.slots == slots
        assert expected_acceptance(tree, rates) >= max(expected_acceptance(t, rates) for t in others) - 1e-12
    assert tree.depth.max() <= depth and max(tree.rank) < len(rates)


@given(st.integers(1, 5), st.integers(1, 4), st.integers(0, 3))
def test_a_lookahead_window_sees_what_the_paper_says(width: int, rows: int, guesses: int) -> None:
    """Row 0 is causal; slot (r, c) sees row 0 up to column c, its own column above it, and itself.

    Each guess is a chain of its own, and all see the pending token.
    """
    tree = Tree.window(width, rows, guesses)
    slot = {(r, c): 1 + r * width + c for r in range(rows) for c in range(width)}
    first_guess = 1 + rows * width
    mask_NN = np.zeros((first_guess + guesses * rows,) * 2, bool)
    mask_NN[:, 0] = True
    for (r, c), i in slot.items():
        mask_NN[i, [slot[0, left] for left in range(c + 1)]] = True
        mask_NN[i, [slot[above, c] for above in range(r + 1)]] = True
        assert tree.depth[i] == 1 + r + c
    for guess in range(guesses):
        for nth in range(rows):
            start = first_guess + guess * rows
            mask_NN[start + nth, start : start + nth + 1] = True
            assert tree.depth[start + nth] == 1 + nth
    assert np.array_equal(tree.mask, mask_NN)


@given(trees, st.integers(1, 8))
def test_a_trees_first_slots_fit_it_and_chains_are_chains(tree: Tree, slots: int) -> None:
    assert tree.fits(Tree(tree.parents[:slots]))
    assert tree.fits(Tree.chain(slots)) == (tree.parents[:slots] == Tree.chain(slots).parents)
    assert tree.is_chain == (tree.depth.max() == tree.slots - 1)


def test_mask_and_depth_cannot_be_written_to() -> None:
    for array in (Tree.chain(3).mask, Tree.chain(3).depth):
        with pytest.raises(ValueError):
            array[:] = 0


def worth(tree: Tree, probs: list[float]) -> float:
    """Return the mean of right slots, if a child of rank r is right with `probs[r]` when its parent is."""
    reach = [1.0]
    for slot in range(1, tree.slots):
        rank = tree.rank[slot]
        reach.append(reach[tree.parents[slot]] * (probs[rank] if rank < len(probs) else 0.0))
    return sum(reach)


@given(st.lists(st.sampled_from([0.8, 0.5, 0.3, 0.1]), min_size=1, max_size=3), st.integers(1, 6), st.integers(1, 4))
def test_the_best_tree_is_best_whatever_the_order_of_the_rates(probs: list[float], slots: int, depth: int) -> None:
    best = Tree.best(probs, slots, depth)
    assert best.slots <= slots and best.depth.max() <= depth
    others = (t for t in every_tree(slots) if t.depth.max() <= depth and max(t.rank) < len(probs))
    assert worth(best, probs) >= max((worth(t, probs) for t in others), default=1.0) - 1e-9


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_the_best_tree_is_best_of_all_small_ones(depth: int) -> None:
    """Two ranks, so that slots which cannot be used any deeper must be used beside."""
    for probs in permutations((0.8, 0.5, 0.3, 0.1), 2):
        for slots in range(1, 6):
            others = (t for n in range(1, slots + 1) for t in every_tree(n) if t.depth.max() <= depth)
            best = max(worth(t, list(probs)) for t in others if max(t.rank) < len(probs))
            assert worth(Tree.best(probs, slots, depth), list(probs)) == pytest.approx(best)


def test_a_tree_is_at_most_64_levels_deep_unless_asked_otherwise() -> None:
    assert Tree.best_first([1.0], 100).slots == 65
    assert Tree.best_first([1.0], 100, depth=70).slots == 71


@given(rates, st.integers(1, 20))
def test_with_rates_that_fall_best_first_is_as_good(probs: list[float], slots: int) -> None:
    assert worth(Tree.best(probs, slots, 64), probs) == pytest.approx(worth(Tree.best_first(probs, slots), probs))


def test_a_tree_grows_where_the_rates_are_high() -> None:
    deep = Tree.by_depth([[0.9, 0.05], [0.9, 0.05], [0.9, 0.05]], 4)
    wide = Tree.by_depth([[0.3, 0.29, 0.28], [0.1, 0.1, 0.1]], 4)
    assert deep.parents == (-1, 0, 1, 2) and wide.parents == (-1, 0, 0, 0)


def test_a_tree_stops_where_no_rate_is_known() -> None:
    assert Tree.by_depth([[0.5]], 8).parents == (-1, 0)
