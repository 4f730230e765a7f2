"""An engine on a tree answers at each slot what it answers at the end of the path to it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import VOCABULARY, ToyKV, World

from specc.runtime.block import Block, Frontier, Parents
from specc.runtime.engine import Engine, narrowest
from specc.runtime.errors import RecipeError
from specc.runtime.sequence import Cache
from specc.runtime.tree import Tree
from specc.runtime.tree_grower import TreeGrower

SLOTS = 8
OUTPUTS = ("ids", "top_k:3", "logits")
WORLD = World()
STORE: ToyKV = WORLD.stores["target"]
CHAIN = WORLD.engine(Block(Tree.chain(5)))
PARENTS = WORLD.engine(Block(Parents(SLOTS)))
FRONTIER = WORLD.engine(Block(Frontier(3, 3 + SLOTS), OUTPUTS))
Drafted = tuple[list[int], Tree, list[int]]
tokens = st.integers(0, VOCABULARY - 1)


@st.composite
def drafts(draw: st.DrawFn) -> Drafted:
    """Draw committed tokens, a tree, and the tokens in its slots."""
    above = draw(st.lists(st.integers(0, 99), max_size=SLOTS - 1))
    tree = Tree((-1, *(x % i for i, x in enumerate(above, 1))))
    slots = draw(st.lists(tokens, min_size=tree.slots, max_size=tree.slots))
    return draw(st.lists(tokens, max_size=9)), tree, slots


def committed(past: list[int]) -> Cache:
    """Return a cache with the rows of these tokens."""
    cache = Cache(STORE)
    CHAIN.extend(cache, past)
    return cache


def logits_of(engine: Engine) -> np.ndarray:
    """Return the logits of the engine's last run."""
    assert engine.outputs.logits_NV is not None
    return engine.outputs.logits_NV


def path_logits(past: list[int], tree: Tree, slots: list[int]) -> list[np.ndarray]:
    """Return the logits at each slot, by feeding the tokens of each path one after another."""
    answers = []
    for slot in range(tree.slots):
        row = CHAIN.extend(committed([]), past + [slots[s] for s in np.flatnonzero(tree.mask[slot])])
        answers.append(logits_of(CHAIN)[row].copy())
    return answers


@given(drafts())
def test_a_baked_tree_in_a_wider_block(draft: Drafted) -> None:
    past, tree, slots = draft
    engine = WORLD.engine(Block(Tree((*tree.parents, *range(tree.slots - 1, SLOTS - 1)))))
    assert engine.block.fits(tree)
    engine.run(committed(past), slots, tree)
    assert np.array_equal(logits_of(engine)[: tree.slots], path_logits(past, tree, slots))


@given(drafts())
def test_parents_as_an_input(draft: Drafted) -> None:
    """What the last tree left in the unused slots does not matter."""
    past, tree, slots = draft
    assert PARENTS.block.fits(tree)
    PARENTS.run(committed(past), slots, tree)
    assert np.array_equal(logits_of(PARENTS)[: tree.slots], path_logits(past, tree, slots))


@given(drafts())
def test_a_frontier_that_is_grown_level_by_level(draft: Drafted) -> None:
    """More slots a level than the engine is wide; no slot, used or not, stands before the first position."""
    past, tree, slots = draft
    rows, grower, right = len(committed(past)), TreeGrower(), path_logits(past, tree, slots)
    committed(past)
    for depth in range(tree.depth.max() + 1):
        level = [s for s in range(tree.slots) if tree.depth[s] == depth]
        for start in range(0, len(level), FRONTIER.slots):
            call = grower.call(level[start : start + FRONTIER.slots], tree.parents)
            outputs = call.run(FRONTIER, rows, slots)
            assert outputs.top_ids_NK is not None
            for row, slot in enumerate(call.slots):
                assert np.array_equal(logits_of(FRONTIER)[row], right[slot])
                assert list(outputs.top_ids_NK[row]) == list(np.argsort(-right[slot], kind="stable")[:3])


@given(st.lists(tokens, min_size=1, max_size=17), st.sampled_from([CHAIN, FRONTIER]))
def test_extending_in_chunks_is_extending_one_by_one(feed: list[int], engine: Engine) -> None:
    cache, one = committed([]), WORLD.engine(Block(Tree.chain(1)))
    row = engine.extend(cache, feed)
    got = logits_of(engine)[row].copy()
    rows = STORE.rows_LC[:, : len(feed)].copy()
    again = committed([])
    assert one.extend(again, feed) == 0
    assert np.array_equal(got, logits_of(one)[0])
    assert np.array_equal(rows, STORE.rows_LC[:, : len(feed)])
    assert cache.tokens == again.tokens == feed


@given(st.lists(tokens, min_size=1, max_size=17))
def test_a_head_on_one_row_gives_the_last_tokens(feed: list[int]) -> None:
    last = WORLD.engine(Block(Tree.chain(5), last_row=True))
    assert last.extend(committed([]), feed) == 0
    row = CHAIN.extend(committed([]), feed)
    assert logits_of(last).shape == (1, VOCABULARY)
    assert np.array_equal(logits_of(last)[0], logits_of(CHAIN)[row])


@pytest.mark.parametrize("past", [0, 3])
def test_a_chain_through_a_frontier_block_is_causal(past: int) -> None:
    cache = committed([1] * past)
    FRONTIER.run(cache, [4, 5], Tree.chain(2))
    assert np.array_equal(logits_of(FRONTIER)[:2], path_logits([1] * past, Tree.chain(2), [4, 5]))


def test_calls_are_counted() -> None:
    engine = WORLD.engine(Block(Tree.chain(2)))
    engine.extend(committed([]), [1, 2, 3])
    assert engine.calls == 2 and engine.seconds > 0


def test_the_first_engine_that_a_tree_fits_runs_it() -> None:
    engines = [WORLD.engine(Block(Tree.chain(n))) for n in (1, 4, 9)]
    assert [narrowest(engines, Tree.chain(n)) for n in (1, 2, 4, 5)] == [engines[0], *[engines[1]] * 2, engines[2]]
    with pytest.raises(RecipeError) as e:
        narrowest(engines, Tree.chain(10))
    assert str(e.value) == (
        "a draft has 10 slots, and its tree fits none of the recipe's engines (target, target, target); "
        "give it shorter drafts, or compile again"
    )
