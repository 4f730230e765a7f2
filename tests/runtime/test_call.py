"""Calls: how they stand below rows of earlier ones, and generators that ask for them."""

from __future__ import annotations

from collections.abc import Generator

import pytest
from toys import ToyKV, World

from specc.runtime.block import Block, Frontier
from specc.runtime.call import Call, Growth, finish
from specc.runtime.draft import Outputs
from specc.runtime.engine import frontier_inputs
from specc.runtime.sequence import Cache
from specc.runtime.tree import Tree


def test_a_chain_grows_in_one_call_in_which_each_slot_sees_those_before_it() -> None:
    assert Growth.chain(3) == Growth((0, 1, 2), 0, (b"\1", b"\1\1", b"\1\1\1"))


def test_slots_of_a_block_see_the_chain_before_them_and_one_another() -> None:
    whole = b"\1\1\1\1"
    assert Growth.block(2, 2) == Growth((0, 1, 2, 3), 0, (b"\1", b"\1\1", whole, whole), (0, 1, 2, 3))


def test_slots_of_a_block_stand_one_behind_the_other_in_the_inputs_of_an_engine() -> None:
    growth = Growth.block(1, 2)
    mask, depth = frontier_inputs(4, 4, growth.rows, growth.visible, growth.depths)
    rows = [mask[start : start + 4] for start in range(0, 16, 4)]
    assert rows == [b"\1\0\0\0", b"\1\1\1\0", b"\1\1\1\0", b"\1\1\1\1"]
    assert depth == (0, 1, 2, 0)


def test_a_call_of_a_growing_tree_stands_below_the_rows_that_are_not_committed() -> None:
    """Slots 1 and 2 of a tree whose first row the cache has committed already."""
    engine, cache = World().engine(Block(Frontier(2, 6))), Cache(ToyKV(), [7])
    growth = Growth((1, 2), 1, (b"\1\1", b"\1\0\1"))
    assert growth.call(engine, cache, [7, 8, 9]) == Call(engine, cache, 1, [8, 9], growth)
    assert growth.call(engine, cache, [7, 8, 9], committed=1).rows == 0


def test_a_generator_gets_the_outputs_of_each_call_and_returns_its_result() -> None:
    world = World()
    engine = world.engine(Block(Tree.chain(1)))

    def calls() -> Generator[Call, Outputs, list[int]]:
        tokens = [5]
        for row in range(3):
            outputs = yield Call(engine, world.cache, row, tokens[-1:], Tree.chain(1))
            tokens.append(outputs.ids_N[0])
        return tokens

    tokens = finish(calls())
    assert len(tokens) == 4 and engine.calls == 3
    assert tokens[1] == Call(engine, world.cache, 0, [5], Tree.chain(1)).run().ids_N[0]


def test_a_call_cannot_change() -> None:
    world = World()
    call = Call(world.engine(Block(Tree.chain(1))), world.cache, 0, [5], Tree.chain(1))
    with pytest.raises(AttributeError):
        call.rows = 1  # type: ignore[misc]
