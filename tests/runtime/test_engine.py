"""An engine on a tree says at each slot what it says at the end of the path to it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import VOCABULARY, World

from specc.runtime.block import Block, Frontier, Parents
from specc.runtime.drafters.tree_grower import TreeGrower
from specc.runtime.sequence import Cache
from specc.runtime.tree import Tree

SLOTS = 8
OUTPUTS = ("ids", "top_k:3", "logits")
WORLD = World()
CHAIN = WORLD.engine(Block(Tree.chain(5)))
PARENTS = WORLD.engine(Block(Parents(SLOTS)))
FRONTIER = WORLD.engine(Block(Frontier(3, 3 + SLOTS), OUTPUTS))
tokens = st.integers(0, VOCABULARY - 1)


@st.composite
def drafts(draw):
    """Committed tokens, a tree, and the tokens in its slots."""
    above = draw(st.lists(st.integers(0, 99), max_size=SLOTS - 1))
    tree = Tree((-1, *(x % i for i, x in enumerate(above, 1))))
    slots = draw(st.lists(tokens, min_size=tree.slots, max_size=tree.slots))
    return draw(st.lists(tokens, max_size=9)), tree, slots


def committed(past: list[int]) -> Cache:
    cache = Cache(WORLD.cache.store)
    CHAIN.extend(cache, past)
    return cache


def path_logits(past: list[int], tree: Tree, slots: list[int]) -> list[np.ndarray]:
    """By feeding the tokens of each path one after another."""
    answers = []
    for slot in range(tree.slots):
        row = CHAIN.extend(committed([]), past + [slots[s] for s in np.flatnonzero(tree.mask[slot])])
        answers.append(CHAIN.outputs.logits_NV[row].copy())
    return answers


@given(drafts())
def test_a_baked_tree_in_a_wider_block(draft):
    past, tree, slots = draft
    block = Block(Tree((*tree.parents, *range(tree.slots - 1, SLOTS - 1))))
    assert block.fits(tree)
    logits = WORLD.engine(block).run(committed(past), slots, tree).logits_NV
    assert np.array_equal(logits[: tree.slots], path_logits(past, tree, slots))


@given(drafts())
def test_parents_as_an_input(draft):
    """What the last tree left in the unused slots does not matter."""
    past, tree, slots = draft
    assert PARENTS.block.fits(tree)
    logits = PARENTS.run(committed(past), slots, tree).logits_NV
    assert np.array_equal(logits[: tree.slots], path_logits(past, tree, slots))


@given(drafts())
def test_a_frontier_grown_level_by_level(draft):
    """More slots a level than the engine is wide; no slot, used or not, stands before the first position."""
    past, tree, slots = draft
    rows, grower, truth = len(committed(past)), TreeGrower(), path_logits(past, tree, slots)
    committed(past)
    for depth in range(tree.depth.max() + 1):
        level = [s for s in range(tree.slots) if tree.depth[s] == depth]
        for start in range(0, len(level), FRONTIER.slots):
            call = grower.call(level[start : start + FRONTIER.slots], tree.parents)
            outputs = call.run(FRONTIER, rows, slots)
            for row, slot in enumerate(call.slots):
                assert np.array_equal(outputs.logits_NV[row], truth[slot])
                assert list(outputs.top_ids_NK[row]) == list(np.argsort(-truth[slot], kind="stable")[:3])


@given(st.lists(tokens, min_size=1, max_size=17), st.sampled_from([CHAIN, FRONTIER]))
def test_extending_in_chunks_is_extending_one_by_one(feed, engine):
    cache, one = committed([]), WORLD.engine(Block(Tree.chain(1)))
    row = engine.extend(cache, feed)
    got = engine.outputs.logits_NV[row].copy()
    rows = WORLD.cache.store.rows_LC[:, : len(feed)].copy()
    again = committed([])
    assert one.extend(again, feed) == 0
    assert np.array_equal(got, one.outputs.logits_NV[0])
    assert np.array_equal(rows, WORLD.cache.store.rows_LC[:, : len(feed)])
    assert cache.tokens == again.tokens == feed


@given(st.lists(tokens, min_size=1, max_size=17))
def test_a_head_on_one_row_gives_the_last_tokens(feed):
    last = WORLD.engine(Block(Tree.chain(5), last_row=True))
    assert last.extend(committed([]), feed) == 0
    row = CHAIN.extend(committed([]), feed)
    assert last.outputs.logits_NV.shape == (1, VOCABULARY)
    assert np.array_equal(last.outputs.logits_NV[0], CHAIN.outputs.logits_NV[row])


@pytest.mark.parametrize("past", [0, 3])
def test_a_chain_through_a_masked_block_is_causal(past):
    cache = committed([1] * past)
    assert FRONTIER.block.fits(Tree.chain(3)) and not FRONTIER.block.fits(Tree((-1, 0, 0)))
    logits = FRONTIER.run(cache, [4, 5], Tree.chain(2)).logits_NV
    assert np.array_equal(logits[:2], path_logits([1] * past, Tree.chain(2), [4, 5]))


def test_calls_are_counted():
    engine = WORLD.engine(Block(Tree.chain(2)))
    engine.extend(committed([]), [1, 2, 3])
    assert engine.calls == 2 and engine.seconds > 0
