"""Runs of an engine with lanes: which lane a sequence takes, what fills the inputs, and whose the outputs are.

The slots of all lanes stand in one line, lane after lane. Sequences take the first lanes, and the others are idle.

S  slots of a run      N  slots of a lane in a block of fixed width      T  span of a Frontier block
"""

from __future__ import annotations

from collections.abc import Sequence as Tokens
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple, Protocol

import numpy as np

from .block import Block
from .draft import Outputs
from .engine import run_timed
from .errors import RecipeError
from .sequence import KVStore


class LaneCall(NamedTuple):
    """The part of a run that belongs to one sequence.

    Attributes:
        store: the rows of the sequence. The rows that the run writes are scratch.
        past_len: how many rows stand before the slots.
        tokens: one token for each slot that is used, one at least.
        parents: for a block of Parents: the parent of each slot, -1 for slot 0. Slots count from the sequence's first.
        mask: for a block of Frontier: N times T bytes, 1 where a slot sees a row.
        depth: for a block of Frontier: for each of N slots its position minus `past_len`.
    """

    store: KVStore
    past_len: int
    tokens: Tokens[int]
    parents: Tokens[int] = ()
    mask: bytes = b""
    depth: Tokens[int] = ()


class LanesRunner(Protocol):
    """A runner of an engine with lanes. Each backend has a class with these members.

    Attributes:
        most: the largest number of slots that a run may have, those of all lanes.
        any_width: whether a run may have fewer slots, lanes any widths, and the last lanes none. If not, all lanes have
            as many slots in every run.
    """

    most: int
    any_width: bool

    def bind(self, stores: Tokens[Any]) -> None:
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

    def room(self, widths: Tokens[int]) -> bool:
        """Return whether one run can take calls of so many tokens each."""
        if len(widths) > self.block.lanes:
            return False
        if not self.runner.any_width:
            return max(widths) <= self.block.topology.slots
        return sum(widths) <= self.runner.most

    def run(self, calls: Tokens[LaneCall]) -> list[Outputs]:
        """Run calls of several sequences at once, and return the outputs of each, a row for each of its tokens.

        Args:
            calls: no two of them may have one store.

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
        lanes = self._take_lanes([call.store for call in calls])
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
            arrays["past_len"][lane] = call.past_len
            _fill(arrays, call, start)
        self.seconds += run_timed(self.name, partial(self.runner.run, ends[-1]))
        self.calls += 1
        parts = zip(starts, widths_by_call, strict=True)
        return [_outputs(arrays, slice(start, start + width)) for start, width in parts]

    def _take_lanes(self, stores: Tokens[KVStore]) -> list[int]:
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


def _fill(arrays: dict[str, np.ndarray], call: LaneCall, start: int) -> None:
    """Write the inputs of one call, whose first slot is `start`."""
    arrays["input_ids"][0, start : start + len(call.tokens)] = call.tokens
    if call.parents:  # They count the slots of all lanes.
        arrays["parents"][start : start + len(call.parents)] = [p + start if p >= 0 else p for p in call.parents]
    if call.mask:
        mask = arrays["mask"]
        rows = np.frombuffer(call.mask, np.bool_).reshape(-1, mask.shape[1])
        mask[start : start + len(rows)] = rows
        arrays["depth"][start : start + len(call.depth)] = call.depth


def _outputs(arrays: dict[str, np.ndarray], rows: slice) -> Outputs:
    """Return views of the outputs of some rows."""
    return Outputs.of({name: array[0, rows] for name, array in arrays.items() if array.ndim > 1 and name != "mask"})
