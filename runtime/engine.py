"""An engine: one block, ready to run.

N  slots of the block      T  span of a Frontier block
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from collections.abc import Sequence as Tokens
from functools import lru_cache
from typing import Protocol

import numpy as np

from .block import Block, Frontier, Parents
from .draft import Outputs
from .errors import BackendError, RecipeError, SpeccError, first_line
from .sequence import Cache, KVStore
from .tree import Tree


class Runner(Protocol):
    """What a backend provides for each engine: host arrays that are bound once to its named inputs and outputs."""

    @property
    def inputs(self) -> Mapping[str, np.ndarray]:
        """The arrays that a run reads, by the names of the inputs. They stay the same."""

    @property
    def outputs(self) -> Mapping[str, np.ndarray]:
        """The arrays that a run writes, by the names of the outputs. They stay the same."""

    def run(self) -> None:
        """Read the inputs, write the slots' rows of the cache in place, and write the outputs."""


class Engine:
    """A block with the runner that runs it.

    Single numbers go through memoryviews of the runner's arrays. After a run, the processor's caches are full of
    weights, and a memoryview then takes a third of numpy's time for a few numbers.

    Attributes:
        name: the engine's name in the manifest.
        slots: how many slots the block runs, N.
        store: the rows that it reads and writes.
        calls: runs so far.
        seconds: time spent in the runner so far.
        outputs: the outputs of the last run.
    """

    def __init__(self, name: str, block: Block, runner: Runner, store: KVStore) -> None:
        self.name, self.block, self.runner, self.store = name, block, runner, store
        self.slots = block.slots
        self.calls, self.seconds = 0, 0.0
        self.outputs = _first_of_batch(runner.outputs)
        self._inputs = {name: _flat_view(array) for name, array in runner.inputs.items()}

    def run(self, cache: Cache, tokens: Tokens[int], tree: Tree) -> Outputs:
        """Run a tree below the rows of a cache. Its rows are scratch until the cache commits some of them.

        Args:
            cache: the committed rows.
            tokens: one token for each slot of the tree.
            tree: a tree that fits the block.
        """
        if isinstance(self.block.topology, Parents):
            _fill(self._inputs["parents"], tree.parents)
        elif isinstance(self.block.topology, Frontier):
            return self.grow(len(cache), tokens, 0, tuple([b"\1" * row for row in range(1, 1 + tree.slots)]))
        return self.run_after(len(cache), tokens)

    def grow(self, rows: int, tokens: Tokens[int], tree_rows: int, visible: tuple[bytes, ...]) -> Outputs:
        """Run the slots of a Frontier block as the next part of a tree.

        Args:
            rows: the committed rows before the tree.
            tokens: the tokens to run, at most one a slot.
            tree_rows: the rows of the tree that earlier calls left.
            visible: for each token a byte for each row of the tree, up to its own: 1 if it sees that row.
        """
        assert isinstance(self.block.topology, Frontier)
        mask, depth = _frontier_inputs(self.slots, self.block.topology.span, tree_rows, visible)
        self._inputs["mask"][:] = mask
        _fill(self._inputs["depth"], depth)
        return self.run_after(rows + tree_rows, tokens)

    def extend(self, cache: Cache, tokens: Tokens[int]) -> int:
        """Run `tokens` one after another, commit all of them, and return the last one's row in the outputs."""
        for start in range(0, len(tokens), self.slots):
            chunk = tokens[start : start + self.slots]
            self.run(cache, chunk, Tree.chain(len(chunk)))
            cache.commit(chunk, range(len(chunk)))
        return 0 if self.block.last_row else (len(tokens) - 1) % self.slots

    def run_after(self, rows: int, tokens: Tokens[int]) -> Outputs:
        """Run `tokens` in the first slots, below so many rows. Their rows are scratch until a cache commits them.

        Raises:
            BackendError: the runner fails.
        """
        _fill(self._inputs["input_ids"], tokens)
        self._inputs["past_len"][0] = rows
        if self.block.last_row:
            self._inputs["row"][0] = len(tokens) - 1
        start = time.perf_counter()
        try:
            self.runner.run()
        except SpeccError:
            raise
        except Exception as e:  # Libraries raise classes of their own that have no common base.
            raise BackendError(f"engine {self.name} cannot run: {first_line(e)}; compile the bundle again") from e
        self.seconds += time.perf_counter() - start
        self.calls += 1
        return self.outputs


def narrowest(engines: Collection[Engine], tree: Tree) -> Engine:
    """Return the first engine that can run `tree`.

    Args:
        engines: engines of one recipe, narrowest first.
        tree: the tree of a draft.

    Raises:
        RecipeError: none can.
    """
    for engine in engines:
        if engine.block.fits(tree):
            return engine
    raise RecipeError(
        f"a draft has {tree.slots} slots, and its tree fits none of the recipe's engines "
        f"({', '.join(e.name for e in engines)}); give it shorter drafts, or compile again"
    )


def _flat_view(array: np.ndarray) -> memoryview:
    """Return a flat view of an array: whole numbers, or bytes if the array has booleans."""
    view = array.reshape(-1).data
    return view.cast("B") if view.format == "?" else view


def _fill(view: memoryview, numbers: Iterable[int]) -> None:
    """Write `numbers` to the start of `view`."""
    for position, number in enumerate(numbers):
        view[position] = number


@lru_cache(4096)  # The same shapes come again and again.
def _frontier_inputs(
    slots: int, span: int, tree_rows: int, visible: tuple[bytes, ...]
) -> tuple[bytes, tuple[int, ...]]:
    """Return the inputs `mask` [N, T] and `depth` [N] of a Frontier block. Unused slots see everything at depth 0."""
    committed, unused = b"\1" * (span - slots - tree_rows), slots - len(visible)
    mask = b"".join((committed + row).ljust(span, b"\0") for row in visible) + b"\1" * span * unused
    return mask, tuple(row.count(1) - 1 - tree_rows for row in visible) + (0,) * unused


def _first_of_batch(arrays: Mapping[str, np.ndarray]) -> Outputs:
    """Return views of the runner's outputs without their first dimension, the batch of one."""
    one = {name: array[0] for name, array in arrays.items()}
    hidden = {name: array for name, array in one.items() if name.startswith("hidden")}
    ids = memoryview(one.get("ids", np.empty(0, np.int64)))
    return Outputs(ids, one.get("logits"), one.get("top_ids"), one.get("top_logprobs"), hidden)
