"""One block, ready to run: tokens in, outputs out, rows kept.

N  slots of the block      T  span of a Frontier block
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Tokens
from functools import lru_cache
from typing import Protocol

import numpy as np

from .block import Block, Frontier, Parents
from .draft import Outputs
from .sequence import Cache, KVStore
from .tree import Tree


class Runner(Protocol):
    """What a backend provides: host arrays bound once to an engine's named inputs and outputs."""

    @property
    def inputs(self) -> Mapping[str, np.ndarray]:
        """The arrays that a run reads, by name. Who fills them never replaces them."""

    @property
    def outputs(self) -> Mapping[str, np.ndarray]:
        """The arrays that a run writes, by name."""

    def run(self) -> None:
        """Read the inputs, update the rows of the cache in place, write the outputs."""


class Engine:
    """A block and what runs it. `calls` and `seconds` count what was spent in the runner.

    Single numbers go through memoryviews of the runner's arrays: after a run, which leaves the processor's caches full
    of weights, they cost a third of what numpy takes to assign a few.
    """

    def __init__(self, name: str, block: Block, runner: Runner, store: KVStore) -> None:
        self.name, self.block, self.runner, self.store = name, block, runner, store
        self.slots = block.slots
        self.calls, self.seconds = 0, 0.0
        self.tokens: Tokens[int] = ()
        self.outputs = _outputs(runner.outputs)
        self._numbers = {name: _view(array) for name, array in runner.inputs.items()}

    def run(self, cache: Cache, tokens: Tokens[int], tree: Tree) -> Outputs:
        """Run `tokens` in the slots of `tree`, after the rows of `cache`. The block must hold the tree."""
        if isinstance(self.block.topology, Parents):
            _fill(self._numbers["parents"], tree.parents)
        elif isinstance(self.block.topology, Frontier):
            return self.grow(len(cache), tokens, 0, tuple([b"\1" * n for n in range(1, 1 + tree.slots)]))
        return self.run_after(len(cache), tokens)

    def grow(self, rows: int, tokens: Tokens[int], grown: int, seen: tuple[bytes, ...]) -> Outputs:
        """Run a Frontier block's slots as part of a tree that has `rows` rows before it and `grown` rows so far.

        seen: for each of the tokens a byte for each row of the tree, up to its own: 1 where it sees that row.
        """
        assert isinstance(self.block.topology, Frontier)
        mask, depth = _frontier(self.slots, self.block.topology.span, grown, seen)
        self._numbers["mask"][:] = mask
        _fill(self._numbers["depth"], depth)
        return self.run_after(rows + grown, tokens)

    def extend(self, cache: Cache, tokens: Tokens[int]) -> int:
        """Run `tokens` one after another and keep them all; return the outputs' row of the last one."""
        for start in range(0, len(tokens), self.slots):
            chunk = tokens[start : start + self.slots]
            self.run(cache, chunk, Tree.chain(len(chunk)))
            cache.commit(chunk, range(len(chunk)))
        return 0 if self.block.last_row else (len(tokens) - 1) % self.slots

    def commit(self, cache: Cache, slots: Tokens[int]) -> None:
        """Commit the rows of `slots`, ascending, of the last run."""
        cache.commit([self.tokens[s] for s in slots], slots)

    def run_after(self, rows: int, tokens: Tokens[int]) -> Outputs:
        """Run `tokens` in the first slots, after so many rows. What they leave is scratch unless it is kept."""
        _fill(self._numbers["input_ids"], tokens)
        self._numbers["past_len"][0] = rows
        if self.block.last_row:
            self._numbers["row"][0] = len(tokens) - 1
        start = time.perf_counter()
        self.runner.run()
        self.seconds += time.perf_counter() - start
        self.calls += 1
        self.tokens = tokens
        return self.outputs


def _view(array: np.ndarray) -> memoryview:
    """The same memory, flat: whole numbers, or bytes in place of booleans."""
    view = array.reshape(-1).data
    return view.cast("B") if view.format == "?" else view


def _fill(view: memoryview, numbers: Iterable[int]) -> None:
    for at, number in enumerate(numbers):
        view[at] = number


@lru_cache(4096)
def _frontier(slots: int, span: int, grown: int, seen: tuple[bytes, ...]) -> tuple[bytes, tuple[int, ...]]:
    """The inputs `mask` and `depth` of a Frontier block; unused slots see everything. Shapes of trees come again."""
    before, unused = b"\1" * (span - slots - grown), slots - len(seen)
    mask = b"".join((before + row).ljust(span, b"\0") for row in seen) + b"\1" * span * unused
    return mask, tuple(row.count(1) - 1 - grown for row in seen) + (0,) * unused


def _outputs(arrays: Mapping[str, np.ndarray]) -> Outputs:
    """The first sequence of a batch of one."""
    one = {name: array[0] for name, array in arrays.items()}
    hidden = {name: array for name, array in one.items() if name.startswith("hidden")}
    ids = memoryview(one.get("ids", np.empty(0, np.int64)))
    return Outputs(ids, one.get("logits"), one.get("top_ids"), one.get("top_logprobs"), hidden)
