"""Runs of an engine with lanes: which lane a sequence takes, what fills the inputs, and whose the outputs are.

The slots of all lanes stand in one line, lane after lane. Sequences take the first lanes, and the others are idle.

S  slots of a run      N  slots of a lane in a block of fixed width      T  span of a Frontier block
"""

from __future__ import annotations

from collections.abc import Sequence as Items
from dataclasses import replace
from functools import partial
from itertools import accumulate
from typing import Any, Protocol

import numpy as np

from .block import Block, Frontier, Parents
from .call import Call, Growth
from .draft import STATES, Outputs
from .engine import frontier_inputs, run_timed
from .errors import RecipeError
from .prices import Prices
from .sequence import KVStore
from .tree import Tree

MOST_RUNS, MOST_SECONDS = 5, 0.2  # Of a measurement at one width. One run is made at least.


class LanesRunner(Protocol):
    """A runner of an engine with lanes. Each backend has a class with these members.

    Attributes:
        most: the largest number of slots that a run may have, those of all lanes.
        any_width: whether a run may have fewer slots, lanes any widths, and the last lanes none. If not, all lanes have
            as many slots in every run.
    """

    most: int
    any_width: bool

    def bind(self, stores: Items[Any]) -> None:
        """Say whose rows each lane reads and writes from now on; None stands for rows that nobody needs."""

    def arrays(self, slots: int) -> dict[str, np.ndarray]:
        """Return the arrays of the inputs and outputs, by name, at so many slots. They stay the same."""

    def run(self, slots: int) -> None:
        """Read the inputs at so many slots, write the lanes' rows in place, and write the outputs."""


class LanesEngine:
    """An engine that runs several sequences at once, each in a lane of its own.

    A sequence keeps its lane from run to run, unless it must fill the place of one that no longer takes part.

    Attributes:
        block: what it runs.
        calls: runs so far.
        seconds: time spent in the runner so far.
    """

    def __init__(self, name: str, block: Block, runner: LanesRunner) -> None:
        """Take over a loaded runner. `name` is the engine's name, for messages."""
        self.name, self.block, self.runner = name, block, runner
        self.calls, self.seconds = 0, 0.0
        self._stores: list[KVStore | None] = [None] * block.lanes
        if not runner.any_width and "mask" in (arrays := runner.arrays(runner.most)):
            arrays["mask"][:] = True  # A slot that sees no row would divide by zero.

    def serves(self, block: Block) -> bool:
        """Return whether a lane runs the calls of an engine with this block, and gives them the same outputs."""
        topology = self.block.topology
        if self.runner.any_width and self.block.is_chain and block.is_chain:
            topology = block.topology
        if not set(block.outputs) <= set(self.block.outputs) or block.topology != topology:
            return False
        if block.inputs != self.block.inputs or block.layers != self.block.layers or block.quantized_group:
            return False
        return replace(block, lanes=self.block.lanes, outputs=self.block.outputs, last_row=False) == replace(
            self.block, topology=topology
        )

    def room(self, widths: Items[int]) -> bool:
        """Return whether one run can take calls of so many tokens each."""
        if len(widths) > self.block.lanes:
            return False
        if not self.runner.any_width:
            return max(widths) <= self.block.topology.slots
        return sum(widths) <= self.runner.most

    def run(self, calls: Items[Call]) -> list[Outputs]:
        """Run calls of several sequences at once, and return the outputs that the engine of each would give.

        Args:
            calls: calls of engines that this one serves. No two of them may use the rows of one cache.

        Returns:
            Views that the next run overwrites.

        Raises:
            RecipeError: the calls do not fit into one run.
            BackendError: the runner fails.
        """
        widths_by_call = [len(call.tokens) for call in calls]
        if not calls or not min(widths_by_call) or not self.room(widths_by_call):
            raise RecipeError(
                f"calls of {widths_by_call} tokens do not fit into one run of engine {self.name}, which has "
                f"{self.block.lanes} lanes and {self.runner.most} slots; run them in turns"
            )
        lanes = self._take_lanes([call.cache.store for call in calls])
        widths = [0 if self.runner.any_width else self.block.topology.slots] * self.block.lanes
        if self.runner.any_width:
            for lane, width in zip(lanes, widths_by_call, strict=True):
                widths[lane] = width
        ends = list(accumulate(widths))
        starts = [ends[lane] - widths[lane] for lane in lanes]
        arrays = self.runner.arrays(ends[-1])
        arrays["past_len"][:] = 0
        arrays["widths"][:] = widths
        for call, lane, start in zip(calls, lanes, starts, strict=True):
            arrays["past_len"][lane] = len(call.cache.tokens) + call.rows
            self._fill(arrays, call, start)
        self.seconds += run_timed(self.name, partial(self.runner.run, ends[-1]))
        self.calls += 1
        return [
            _outputs(arrays, start, start + width, last_row=call.engine.block.last_row)
            for call, start, width in zip(calls, starts, widths_by_call, strict=True)
        ]

    def measure(self, rounds: int = 1) -> Prices:
        """Return what runs cost on this machine, by the shortest times of runs over rows that nobody needs.

        Runs of a file of fixed width cost the same, whatever they hold.

        Args:
            rounds: how often each width is measured, in turns with the others.
        """
        lanes = self.block.lanes
        self.runner.bind([None] * lanes)
        self._stores = [None] * lanes
        width = min(4, self.runner.most // lanes)
        kinds = [[1, *[0] * (lanes - 1)], [1] * lanes, [width] * lanes]
        if not self.runner.any_width:
            kinds = kinds[:1]
        times = zip(*[[self._seconds(widths) for widths in kinds] for _ in range(rounds)], strict=True)
        one, *others = [min(seconds) for seconds in times]
        if not others:
            return Prices(run=one)
        each, wide = others
        slot = max(0.0, (wide - each) / (lanes * (width - 1))) if width > 1 else 0.0
        lane = max(0.0, (each - one) / (lanes - 1) - slot)
        return Prices(run=max(0.0, one - lane - slot), lane=lane, slot=slot)

    def _seconds(self, widths: list[int]) -> float:
        """Return the seconds of the fastest of a few runs in which each lane has so many slots."""
        slots = sum(widths) if self.runner.any_width else self.runner.most
        arrays = self.runner.arrays(slots)
        arrays["past_len"][:], arrays["input_ids"][:] = 0, 0
        arrays["widths"][:] = widths if self.runner.any_width else self.block.topology.slots
        run = partial(self.runner.run, slots)
        run_timed(self.name, run)  # The first run at a width prepares it.
        seconds: list[float] = []
        while len(seconds) < MOST_RUNS and sum(seconds) < MOST_SECONDS:
            seconds.append(run_timed(self.name, run))
        return min(seconds)

    def _fill(self, arrays: dict[str, np.ndarray], call: Call, start: int) -> None:
        """Write the inputs of one call, whose first slot is `start`."""
        tokens, tree = call.tokens, call.tree
        arrays["input_ids"][0, start : start + len(tokens)] = tokens
        for name, values in call.inputs.items():
            arrays[name][0, start : start + len(values)] = values
        topology = self.block.topology
        if isinstance(topology, Parents):  # They count the slots of all lanes.
            assert isinstance(tree, Tree)
            parents = [parent + start if parent >= 0 else parent for parent in tree.parents]
            arrays["parents"][start : start + len(parents)] = parents
        elif isinstance(topology, Frontier):
            growth = Growth.chain(tree.slots) if isinstance(tree, Tree) else tree
            mask, depth = frontier_inputs(topology.slots, topology.span, growth.rows, growth.visible, growth.depths)
            rows = slice(start, start + topology.slots)
            arrays["mask"][rows] = np.frombuffer(mask, np.bool_).reshape(topology.slots, topology.span)
            arrays["depth"][rows] = depth

    def _take_lanes(self, stores: Items[KVStore]) -> list[int]:
        """Return a lane for each store among the first ones, and free all others.

        Raises:
            RecipeError: a store is there twice.
        """
        if len(set(map(id, stores))) < len(stores):
            raise RecipeError(f"two calls of one run of engine {self.name} have the same rows; run them in turns")
        first = range(len(stores))
        by_store = {id(self._stores[lane]): lane for lane in first}
        free = [lane for lane in first if all(self._stores[lane] is not store for store in stores)]
        lanes = [by_store[id(store)] if id(store) in by_store else free.pop(0) for store in stores]
        bound: list[KVStore | None] = [None] * self.block.lanes
        for lane, store in zip(lanes, stores, strict=True):
            bound[lane] = store
        if any(new is not old for new, old in zip(bound, self._stores, strict=True)):
            self.runner.bind(bound)
            self._stores = bound
        return lanes


def _outputs(arrays: dict[str, np.ndarray], start: int, end: int, *, last_row: bool) -> Outputs:
    """Return views of the outputs of some slots: states of all, and the rest of the last one if `last_row`."""
    rows = slice(end - 1 if last_row else start, end)
    return Outputs.of(
        {
            name: array[0, slice(start, end) if name.startswith(STATES) else rows]
            for name, array in arrays.items()
            if array.ndim > 1 and name != "mask"
        }
    )
