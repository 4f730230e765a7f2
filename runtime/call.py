"""A call: what one engine shall run, for one cache.

A drafter asks for calls, and the loop runs them. Calls of several requests can then go into one run of an engine.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from collections.abc import Sequence as Tokens
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np

from .draft import NO_INPUTS, Outputs
from .sequence import Cache
from .tree import Tree

if TYPE_CHECKING:
    from .engine import Engine

T = TypeVar("T")
Inputs = Mapping[str, np.ndarray]  # Rows [tokens, size] of a block's further inputs, by name.


@dataclass(frozen=True)
class Growth:
    """The next part of a tree that grows by several calls, for the engine of a Frontier block.

    Attributes:
        slots: the slots of the tree that the call runs. Row i of the outputs belongs to `slots[i]`.
        rows: how many rows of the tree earlier calls left.
        visible: for each slot a byte for each row of the tree, up to its own: 1 if the slot sees that row. Slots of one
            block see later ones too, and then `depths` says where they stand.
        depths: the position of each slot, less the number of rows before the slots. None if a slot sees its ancestors
            and no other slots, whose number is then its depth.
    """

    slots: tuple[int, ...]
    rows: int
    visible: tuple[bytes, ...]
    depths: tuple[int, ...] | None = None

    @staticmethod
    @lru_cache(256)
    def chain(slots: int) -> Growth:
        """Make the growth that runs a whole chain in one call."""
        return Growth(tuple(range(slots)), 0, tuple([b"\1" * row for row in range(1, 1 + slots)]))

    @staticmethod
    @lru_cache(256)
    def block(chain: int, slots: int) -> Growth:
        """Make the growth of a chain and a block of slots behind it, which see the chain and all slots of the block."""
        everything, width = b"\1" * (chain + slots), chain + slots
        visible = (*Growth.chain(chain).visible, *[everything] * slots)
        return Growth(tuple(range(width)), 0, visible, tuple(range(width)))

    def call(
        self, engine: Engine, cache: Cache, tokens: Tokens[int], committed: int = 0, inputs: Inputs = NO_INPUTS
    ) -> Call:
        """Make the call that runs this part.

        Args:
            engine: an engine of a Frontier block.
            cache: the rows before the tree, and those of the tree that are committed.
            tokens: the tokens of all slots of the tree so far.
            committed: how many rows of the tree the cache has committed.
            inputs: what the slots of this part read besides tokens.
        """
        return Call(engine, cache, self.rows - committed, [tokens[slot] for slot in self.slots], self, inputs)


class Call(NamedTuple):
    """One call of an engine. The rows that it writes are scratch until the cache commits some of them.

    Attributes:
        engine: the engine that runs it.
        cache: the committed rows.
        rows: how many scratch rows after the committed ones the slots also see. Earlier calls left them.
        tokens: one token for each slot that is used.
        tree: how the slots stand below those rows: a tree that fits the block, or a part of one that grows.
        inputs: what the slots read besides tokens, a row for each token; a trained head reads `state`.
        meanwhile: yields calls of other engines over other caches that may run while this call runs; None if there are
            none. They have all run when the call's outputs are there.
    """

    engine: Engine
    cache: Cache
    rows: int
    tokens: Tokens[int]
    tree: Tree | Growth
    inputs: Inputs = NO_INPUTS
    meanwhile: Generator[Call, Outputs, None] | None = None

    def run(self, charge: Callable[[float], object] | None = None) -> Outputs:
        """Run this call alone, and return its outputs as views that the engine's next run overwrites.

        Args:
            charge: is called with the seconds of the run.
        """
        engine = self.engine
        if self.meanwhile is None:
            outputs = engine.run_one(self)
        else:
            pending = engine.start((self,))
            try:
                finish(self.meanwhile, charge)
            finally:
                outputs = pending.wait()[0]
        if charge is not None:
            charge(engine.last_seconds)
        return outputs


class Pending:
    """A run of an engine that was started and goes on in another thread."""

    def __init__(self, future: Future[list[Outputs]]) -> None:
        self._future = future

    def wait(self) -> list[Outputs]:
        """Wait for the run to end, and return the outputs of its calls, in their order.

        Raises:
            BackendError: the engine failed.
        """
        return self._future.result()


def finish(calls: Generator[Call, Outputs, T], charge: Callable[[float], object] | None = None) -> T:
    """Run the calls that a generator yields, each alone, and return what the generator returns.

    Args:
        calls: the generator.
        charge: is called with the seconds of each run.
    """
    try:
        call, send = next(calls), calls.send
        while True:
            call = send(call.run(charge))
    except StopIteration as end:
        result: T = end.value
        return result
