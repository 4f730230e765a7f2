"""Runs of several sequences in one call: which lane each takes, what the engine reads, and whose outputs are whose.

tests/specc/backends/lowering/test_group_query_lanes.py runs lanes on ONNX Runtime.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from doubles.calls import call

from specc.runtime.block import Block, Frontier, Layers, Parents
from specc.runtime.call import Call, Growth
from specc.runtime.errors import BackendError, RecipeError
from specc.runtime.lane_calls import MOST_RUNS, LanesEngine
from specc.runtime.sequence import Released
from specc.runtime.tree import Tree

VOCABULARY = 5
OUTPUTS = ("ids", "logits", "state_a")


class Runner:
    """A runner whose logits are one-hot: the token of each slot is its own id. It keeps what it is told."""

    def __init__(self, block: Block, *, any_width: bool) -> None:
        self.most, self.any_width = block.slots, any_width
        self.bound: list[list[Any]] = []
        self.runs: list[dict[str, list[Any]]] = []
        shapes: dict[str, tuple[tuple[int, ...], type]] = {
            "input_ids": ((1, self.most), np.int64),
            "past_len": ((block.lanes,), np.int64),
            "widths": ((block.lanes,), np.int64),
            "ids": ((1, self.most), np.int64),
            "logits": ((1, self.most, VOCABULARY), np.float32),
            "state_a": ((1, self.most, 1), np.float32),
        }
        if isinstance(block.topology, Parents):
            shapes["parents"] = (self.most,), np.int64
        if isinstance(block.topology, Frontier):
            shapes |= {"mask": ((self.most, block.topology.span), np.bool_), "depth": ((self.most,), np.int64)}
        self._arrays: dict[str, np.ndarray] = {name: np.zeros(shape, dtype) for name, (shape, dtype) in shapes.items()}

    def bind(self, stores: Sequence[Any]) -> None:
        self.bound.append(list(stores))

    def arrays(self, slots: int) -> dict[str, np.ndarray]:
        flat = ("input_ids", *OUTPUTS)
        return {name: array[:, :slots] if name in flat else array for name, array in self._arrays.items()}

    def run(self, slots: int) -> None:
        arrays = self.arrays(slots)
        self.runs.append({name: array.tolist() for name, array in arrays.items() if name not in OUTPUTS})
        arrays["ids"][:] = arrays["input_ids"]
        arrays["state_a"][..., 0] = arrays["input_ids"]
        arrays["logits"][:] = np.eye(VOCABULARY)[arrays["input_ids"]]


def engine(block: Block, *, any_width: bool = True) -> tuple[LanesEngine, Runner]:
    runner = Runner(block, any_width=any_width)
    return LanesEngine("several", block, runner), runner


CHAINS = Block(Tree.chain(4), lanes=3)
A, B, C, D = stores = [Released() for _ in range(4)]


def test_slots_stand_in_one_line_and_each_call_gets_its_own_outputs() -> None:
    lanes, runner = engine(CHAINS)
    first, second = lanes.run([call(A, 7, [1, 2, 3]), call(B, 9, [4])])
    expected = {"input_ids": [[1, 2, 3, 4]], "past_len": [7, 9, 0], "widths": [3, 1, 0]}
    assert runner.runs == [expected]
    assert (list(first.ids_N), list(second.ids_N)) == ([1, 2, 3], [4])
    assert second.logits_NV is not None and second.logits_NV.tolist() == [[0, 0, 0, 0, 1]]
    assert (lanes.calls, lanes.seconds > 0) == (1, True)


def test_a_sequence_keeps_its_lane_unless_it_must_fill_the_place_of_another() -> None:
    lanes, runner = engine(CHAINS)
    calls = {store: call(store, row, [row]) for row, store in enumerate((A, B, C))}
    lanes.run([calls[A], calls[B], calls[C]])
    lanes.run([calls[C], calls[A], calls[B]])
    assert runner.bound == [[A, B, C]]
    assert runner.runs[1]["past_len"] == [0, 1, 2]
    outputs = lanes.run([calls[C], calls[B]])
    assert runner.bound[1:] == [[C, B, None]]
    assert [list(each.ids_N) for each in outputs] == [[2], [1]]


def test_a_run_may_be_as_wide_as_the_engine_and_as_narrow_as_a_token() -> None:
    lanes, runner = engine(CHAINS)
    assert lanes.room([12]) and lanes.room([10, 1, 1]) and lanes.room([1])
    assert not lanes.room([13]) and not lanes.room([11, 1, 1]) and not lanes.room([1, 1, 1, 1])
    lanes.run([call(A, 0, [1] * 12)])
    assert runner.runs[0]["widths"] == [12, 0, 0]


@pytest.mark.parametrize(
    "calls",
    [
        [],
        [call(A, 0, [])],
        [call(A, 0, [1] * 13)],
        [call(store, 0, [1]) for store in stores],
        [call(A, 0, [1]), call(A, 0, [1])],
    ],
)
def test_calls_that_do_not_fit_are_refused_in_one_line(calls: list[Call]) -> None:
    lanes, runner = engine(CHAINS)
    with pytest.raises(RecipeError, match=r"several.*; run them in turns$"):
        lanes.run(calls)
    assert runner.runs == []


def test_a_file_of_fixed_width_has_as_many_slots_in_each_lane() -> None:
    lanes, runner = engine(CHAINS, any_width=False)
    assert lanes.room([4, 4, 1]) and not lanes.room([5])
    first, second = lanes.run([call(A, 7, [1, 2]), call(B, 9, [3, 4])])
    assert runner.runs[0]["widths"] == [4, 4, 4]
    assert runner.runs[0]["input_ids"] == [[1, 2, 0, 0, 3, 4, 0, 0, 0, 0, 0, 0]]
    assert (list(first.ids_N), list(second.ids_N)) == ([1, 2], [3, 4])


def test_parents_count_the_slots_of_all_lanes() -> None:
    lanes, runner = engine(Block(Parents(3), lanes=2), any_width=False)
    lanes.run([call(A, 0, [1, 2, 3], Tree((-1, 0, 0))), call(B, 0, [1, 2], Tree((-1, 0)))])
    assert runner.runs[0]["parents"] == [-1, 0, 0, -1, 3, 0]


def test_a_frontiers_mask_stands_at_its_lane_and_idle_slots_see_something() -> None:
    lanes, runner = engine(Block(Frontier(1, 3), lanes=3), any_width=False)
    first, second = Growth((2,), 2, (b"\1\0\1",)), Growth((2,), 2, (b"\0\1\1",))
    lanes.run([call(A, 5, [1], first), call(B, 6, [2], second)])
    assert runner.runs[0]["mask"] == [[True, False, True], [False, True, True], [True, True, True]]
    assert runner.runs[0]["depth"] == [-1, -1, 0]


def test_a_failure_of_the_runner_names_the_engine() -> None:
    lanes, runner = engine(CHAINS)
    runner.run = lambda slots: 1 / 0  # type: ignore[method-assign,assignment]
    with pytest.raises(BackendError, match=r"engine several cannot run: .*zero"):
        lanes.run([call(A, 0, [1])])


def test_prices_are_those_of_the_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A run takes 10 ms, a lane 2 ms and a slot 1 ms here."""
    lanes, runner = engine(CHAINS)
    now = [0.0]

    def run(slots: int) -> None:
        widths = runner.arrays(slots)["widths"]
        now[0] += 0.010 + 0.002 * sum(widths > 0) + 0.001 * slots

    monkeypatch.setattr(runner, "run", run)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    prices = lanes.measure()
    assert (prices.run, prices.lane, prices.slot) == pytest.approx((0.010, 0.002, 0.001))
    assert runner.bound == [[None, None, None]]


def test_prices_of_several_rounds_are_those_of_the_quietest(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process takes half of the machine in the first round."""
    lanes, runner = engine(CHAINS)
    now, runs = [0.0], [0]

    def run(slots: int) -> None:
        runs[0] += 1
        busy = runs[0] <= 2 * MOST_RUNS
        now[0] += (0.005 + 0.001 * sum(runner.arrays(slots)["widths"] > 0) + 0.001 * slots) * (1 + busy * slots)

    monkeypatch.setattr(runner, "run", run)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    prices = lanes.measure(rounds=2)
    assert (prices.run, prices.lane, prices.slot) == pytest.approx((0.005, 0.001, 0.001))


def test_runs_of_one_width_have_one_price() -> None:
    lanes, _ = engine(CHAINS, any_width=False)
    prices = lanes.measure()
    assert prices.run > 0 and (prices.lane, prices.slot) == (0, 0)


def test_it_serves_engines_whose_outputs_it_can_give() -> None:
    lanes, _ = engine(CHAINS)
    assert lanes.serves(Block(Tree.chain(64), last_row=True)) and lanes.serves(Block(Tree.chain(1), ("ids",)))
    assert not lanes.serves(Block(Tree.chain(4), ("ids", "top_k:3")))
    assert not lanes.serves(Block(Tree.chain(4), weights="int4"))
    assert not lanes.serves(Block(Tree.chain(4), layers=Layers(skip_mlp=(1,))))
    assert not lanes.serves(Block(Tree((-1, 0, 0)))) and not lanes.serves(Block(Tree.chain(1), cache="assistant"))
    fixed, _ = engine(CHAINS, any_width=False)
    assert fixed.serves(Block(Tree.chain(4))) and not fixed.serves(Block(Tree.chain(3)))


def test_an_engine_of_one_row_gets_the_outputs_of_its_last_token() -> None:
    lanes, _ = engine(CHAINS)
    first, second = lanes.run([call(A, 7, [1, 2, 3], last_row=True), call(B, 9, [4, 2])])
    assert (list(first.ids_N), list(second.ids_N)) == ([3], [4, 2])


def test_a_call_for_the_last_row_gets_the_states_of_all_its_slots() -> None:
    """A prompt of a lane commits all of its rows, whose states a trained head reads."""
    lanes, _ = engine(Block(Tree.chain(4), ("ids", "logits", "state:a"), lanes=2))
    first, second = lanes.run([call(A, 0, [1, 2, 3], last_row=True), call(B, 0, [4, 0], last_row=True)])
    assert (list(first.ids_N), list(second.ids_N)) == ([3], [0])
    assert first.states["a"][:, 0].tolist() == [1, 2, 3] and second.states["a"][:, 0].tolist() == [4, 0]
