"""An engine on a tree answers at each slot what it answers at the end of the path to it."""

from __future__ import annotations

from threading import Event

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toys import VOCABULARY, Toy, ToyKV, World

from specc.runtime.block import Block, Frontier, Parents
from specc.runtime.call import Call
from specc.runtime.engine import Engine, narrowest
from specc.runtime.errors import BackendError, RecipeError, SpeccError
from specc.runtime.sequence import Cache, KVStore
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
    Call(engine, committed(past), 0, slots, tree).run()
    assert np.array_equal(logits_of(engine)[: tree.slots], path_logits(past, tree, slots))


@given(drafts())
def test_parents_as_an_input(draft: Drafted) -> None:
    """What the last tree left in the unused slots does not matter."""
    past, tree, slots = draft
    assert PARENTS.block.fits(tree)
    Call(PARENTS, committed(past), 0, slots, tree).run()
    assert np.array_equal(logits_of(PARENTS)[: tree.slots], path_logits(past, tree, slots))


@given(drafts())
def test_a_frontier_that_is_grown_level_by_level(draft: Drafted) -> None:
    """More slots a level than the engine is wide; no slot, used or not, stands before the first position."""
    past, tree, slots = draft
    grower, right = TreeGrower(), path_logits(past, tree, slots)
    cache = committed(past)
    for depth in range(tree.depth.max() + 1):
        level = [s for s in range(tree.slots) if tree.depth[s] == depth]
        for start in range(0, len(level), FRONTIER.slots):
            growth = grower.grow(level[start : start + FRONTIER.slots], tree.parents)
            outputs = growth.call(FRONTIER, cache, slots).run()
            assert outputs.top_ids_NK is not None
            for row, slot in enumerate(growth.slots):
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
    Call(FRONTIER, cache, 0, [4, 5], Tree.chain(2)).run()
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


def other_rows() -> Cache:
    """Return a cache over rows that no engine of `WORLD` has."""
    return Cache(ToyKV())


def lanes(block: Block) -> tuple[Engine, list[Cache]]:
    """Return an engine that serves any store, and two caches of different texts over stores of their own."""

    def bind(store: KVStore) -> Toy:
        assert isinstance(store, ToyKV)
        return WORLD.runner(block, store, VOCABULARY)

    store = ToyKV()
    engine = Engine("toy", block, bind(store), store, bind)
    caches = [Cache(store), Cache(ToyKV())]
    for number, cache in enumerate(caches):
        engine.extend(cache, [number, 3, 4])
    return engine, caches


def test_calls_over_several_caches_answer_as_each_alone() -> None:
    tree = Tree((-1, 0, 0))
    engine, caches = lanes(Block(tree, OUTPUTS))
    calls = [Call(engine, cache, 0, [5, 6, 7], tree) for cache in caches]
    alone = [call.run().copy() for call in calls]
    for outputs, expected in zip(engine.run(calls), alone, strict=True):
        assert outputs.ids_N.tolist() == expected.ids_N.tolist()
        for got, right in ((outputs.logits_NV, expected.logits_NV), (outputs.top_ids_NK, expected.top_ids_NK)):
            assert got is not None and right is not None and np.array_equal(got, right)
    first, second = (outputs.logits_NV for outputs in alone)
    assert first is not None and second is not None and not np.array_equal(first, second)


def test_the_outputs_of_several_calls_over_one_store_do_not_overwrite_each_other() -> None:
    engine, cache = WORLD.engine(Block(Tree.chain(1), OUTPUTS)), committed([1, 2])
    calls = [Call(engine, cache, 0, [token], Tree.chain(1)) for token in (3, 4, 5)]
    alone = [logits.copy() for call in calls if (logits := call.run().logits_NV) is not None]
    several = [outputs.logits_NV for outputs in engine.run(calls)]
    assert all(got is not None and np.array_equal(got, right) for got, right in zip(several, alone, strict=True))


def test_one_call_is_not_copied() -> None:
    engine = WORLD.engine(Block(Tree.chain(1)))
    call = Call(engine, committed([1]), 0, [3], Tree.chain(1))
    assert call.run() is call.run() is engine.outputs


def test_a_call_goes_on_below_scratch_rows_of_an_earlier_one() -> None:
    """As if the earlier tokens were committed."""
    engine, cache = WORLD.engine(Block(Tree.chain(1))), committed([1, 2])
    for row, token in enumerate([3, 4, 5]):
        Call(engine, cache, row, [token], Tree.chain(1)).run()
    got = logits_of(engine)[0].copy()
    row = CHAIN.extend(committed([]), [1, 2, 3, 4, 5])
    assert np.array_equal(got, logits_of(CHAIN)[row])


@pytest.mark.parametrize("use", ["run", "start"])
def test_a_cache_of_other_rows_is_refused_before_anything_runs(use: str) -> None:
    engine = WORLD.engine(Block(Tree.chain(1)))
    good = Call(engine, committed([1]), 0, [3], Tree.chain(1))
    with pytest.raises(SpeccError, match=r"a call has a cache of other rows; take one of seq\.caches") as e:
        getattr(engine, use)([good, good._replace(cache=other_rows())])
    assert "\n" not in str(e.value) and engine.calls == 0


def test_a_store_that_was_released_is_bound_anew() -> None:
    engine, (first, second) = lanes(Block(Tree.chain(1)))
    calls = [Call(engine, cache, 0, [5], Tree.chain(1)) for cache in (first, second)]
    answers = [call.run().ids_N[0] for call in calls]
    bound = calls[1].run()
    engine.release(second.store)
    engine.release(first.store)  # The engine's own rows stay.
    assert calls[1].run() is not bound
    assert [call.run().ids_N[0] for call in calls] == answers


def test_a_started_run_goes_on_while_the_caller_does_something_else() -> None:
    engine, cache = WORLD.engine(Block(Tree.chain(1))), committed([1, 2])
    call = Call(engine, cache, 0, [3], Tree.chain(1))
    expected, running, done = call.run().ids_N[0], Event(), Event()
    run = engine.runner.run

    def slow() -> None:
        running.set()
        assert done.wait(10)
        run()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.runner, "run", slow)
        pending = engine.start([call])
        assert running.wait(10)
        done.set()
        assert [outputs.ids_N[0] for outputs in pending.wait()] == [expected]
        patch.setattr(engine.runner, "run", lambda: 1 / 0)
        with pytest.raises(BackendError, match="cannot run: division by zero"):
            engine.start([call]).wait()
