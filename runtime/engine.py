"""An engine: one block, ready to run.

N  slots of the block      T  span of a Frontier block
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from collections.abc import Sequence as Tokens
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Protocol

import numpy as np

from .block import TARGET_ROWS, Block, Frontier, Parents
from .call import Call, Growth, Pending, finish
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


Bind = Callable[[KVStore], Runner | None]  # Makes a runner over another store; None if the store is not one to use.


class Engine:
    """A block with the runners that run it: one for each store of rows that it was asked to use.

    Single numbers go through memoryviews of the runner's arrays. After a run, the processor's caches are full of
    weights, and a memoryview then takes a third of numpy's time for a few numbers.

    Attributes:
        name: the engine's name in the manifest.
        block: what it runs.
        slots: how many slots the block runs, N.
        store: the rows that it reads and writes if a call has no others.
        runner: the runner over `store`.
        calls: runs so far.
        seconds: time spent in runners so far.
        last_seconds: the part of it that the last run took.
        outputs: the outputs of the last run.
    """

    def __init__(self, name: str, block: Block, runner: Runner, store: KVStore, bind: Bind | None = None) -> None:
        """Take over a loaded runner.

        Args:
            name: the engine's name in the manifest.
            block: what it runs.
            runner: runs the block over the rows of `store`.
            store: the rows.
            bind: makes a runner over another store when a call needs one; None serves `store` alone.
        """
        self.name, self.block, self.store, self.runner = name, block, store, runner
        self.slots = block.slots
        self.calls, self.seconds, self.last_seconds = 0, 0.0, 0.0
        self._bind = bind
        self._bindings: dict[KVStore, _Binding] = {store: _Binding(block, runner)}
        self._thread: ThreadPoolExecutor | None = None  # For `start`.
        self.outputs = self._bindings[store].outputs

    def run(self, calls: Tokens[Call]) -> list[Outputs]:
        """Run calls, one after another, and return the outputs of each.

        Args:
            calls: calls of this engine. No two of them may use the rows of one cache.

        Returns:
            Views that the next run overwrites.

        Raises:
            SpeccError: a call has a cache whose rows are not those of this engine. No call has run then.
            BackendError: the runner fails.
        """
        if len(calls) == 1:
            return [self.run_one(calls[0])]
        bindings = [self._binding(call.cache.store) for call in calls]
        outputs = []
        for binding, call in zip(bindings, calls, strict=True):
            views = self.run_one(call)
            outputs.append(views.copy() if bindings.count(binding) > 1 else views)
        return outputs

    def run_one(self, call: Call) -> Outputs:
        """Run one call, as `run` does, and return its outputs."""
        _, cache, rows, tokens, tree, inputs, _ = call
        binding = self._bindings.get(cache.store) or self._binding(cache.store)
        if binding.parents is not None:
            assert isinstance(tree, Tree)
            _fill(binding.parents, tree.parents)
        elif binding.mask is not None and binding.depth is not None:
            growth = Growth.chain(tree.slots) if isinstance(tree, Tree) else tree
            span = len(binding.mask) // self.slots
            binding.mask[:], depth = frontier_inputs(self.slots, span, growth.rows, growth.visible, growth.depths)
            _fill(binding.depth, depth)
        _fill(binding.input_ids, tokens)
        binding.past_len[0] = len(cache.tokens) + rows
        if binding.row is not None:
            binding.row[0] = len(tokens) - 1
        if binding.target_rows is not None and cache.target is not None:
            binding.target_rows[0] = len(cache.target.tokens)
        if inputs:
            for name, values in inputs.items():
                binding.runner.inputs[name][0, : len(values)] = values
        start = time.perf_counter()  # `run_timed` does this too, and would cost each step a further Python call.
        try:
            binding.runner.run()
        except SpeccError:
            raise
        except Exception as e:
            raise _failure(self.name, e) from e
        self.last_seconds = seconds = time.perf_counter() - start
        self.seconds += seconds
        self.calls += 1
        self.outputs = binding.outputs
        return binding.outputs

    def start(self, calls: Tokens[Call]) -> Pending:
        """Start a run in another thread, and return at once. The engine must not run anything else until it ends.

        Args:
            calls: calls of this engine, as `run` takes them.

        Raises:
            SpeccError: a call has a cache whose rows are not those of this engine.
        """
        for call in calls:
            self._binding(call.cache.store)
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"specc {self.name}")
        return Pending(self._thread.submit(self.run, calls))

    def release(self, store: KVStore) -> None:
        """Drop the runner over a store that was bound by a call. It is bound again when a call needs it."""
        if store is not self.store:
            self._bindings.pop(store, None)

    def extend(self, cache: Cache, tokens: Tokens[int]) -> int:
        """Run `tokens` one after another, commit all of them, and return the last one's row in the outputs."""
        return finish(extending(self, cache, tokens))[1]

    def _binding(self, store: KVStore) -> _Binding:
        """Return the runner over a store with its arrays, and make it if this engine may use the store.

        Raises:
            SpeccError: the store is not one of this engine's caches.
        """
        binding = self._bindings.get(store)
        if binding is None:
            runner = None if self._bind is None else self._bind(store)
            if runner is None:
                raise SpeccError(
                    f"engine {self.name} runs over rows of cache {self.block.cache!r}, and a call has a cache of other "
                    "rows; take one of seq.caches, or load the bundle that the cache belongs to"
                )
            binding = self._bindings[store] = _Binding(self.block, runner)
        return binding


class _Binding:
    """A runner with flat views of its inputs, and its outputs. An input is None if the block has none such."""

    def __init__(self, block: Block, runner: Runner) -> None:
        views = {name: _flat_view(array) for name, array in runner.inputs.items()}
        self.runner = runner
        self.input_ids, self.past_len = views["input_ids"], views["past_len"]
        self.row = views["row"] if block.last_row else None
        self.target_rows = views[TARGET_ROWS] if TARGET_ROWS in block.inputs else None
        self.parents = views["parents"] if isinstance(block.topology, Parents) else None
        self.mask = views["mask"] if isinstance(block.topology, Frontier) else None
        self.depth = views["depth"] if isinstance(block.topology, Frontier) else None
        self.outputs = Outputs.of({name: array[0] for name, array in runner.outputs.items()})


def run_timed(name: str, run: Callable[[], object]) -> float:
    """Run an engine's runner, and return the seconds that it took.

    Args:
        name: the engine's name.
        run: the runner's own function.

    Raises:
        BackendError: the runner fails.
    """
    start = time.perf_counter()
    try:
        run()
    except SpeccError:
        raise
    except Exception as e:
        raise _failure(name, e) from e
    return time.perf_counter() - start


def _failure(name: str, error: Exception) -> BackendError:
    """Return the error of a runner as one of specc. Libraries raise classes of their own that have no common base."""
    return BackendError(f"engine {name} cannot run: {first_line(error)}; compile the bundle again")


def extending(engine: Engine, cache: Cache, tokens: Tokens[int]) -> Generator[Call, Outputs, tuple[Outputs, int]]:
    """Yield the calls that run `tokens` one after another, and commit all of them.

    Args:
        engine: an engine whose block runs chains.
        cache: the committed rows.
        tokens: the tokens. Without any, nothing runs.

    Returns:
        The outputs of the last call, and the last token's row in them.
    """
    outputs = engine.outputs
    for start in range(0, len(tokens), engine.slots):
        chunk = tokens[start : start + engine.slots]
        outputs = yield Call(engine, cache, 0, chunk, Tree.chain(len(chunk)))
        cache.commit(chunk, range(len(chunk)), outputs)
    return outputs, 0 if engine.block.last_row else (len(tokens) - 1) % engine.slots


def narrowest(engines: Collection[Engine], tree: Tree) -> Engine:
    """Return the first engine that can run `tree`.

    Args:
        engines: engines of one recipe, narrowest first.
        tree: the tree of a draft.

    Raises:
        RecipeError: none can.
    """
    for engine in engines:
        if engine.block.topology.fits(tree):
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
def frontier_inputs(
    slots: int, span: int, rows: int, visible: tuple[bytes, ...], depths: tuple[int, ...] | None = None
) -> tuple[bytes, tuple[int, ...]]:
    """Return the inputs `mask` [N, T] and `depth` [N] of a Frontier block. Unused slots see everything at depth 0.

    Args:
        slots: N.
        span: T.
        rows: as `Growth` has it.
        visible: as `Growth` has it.
        depths: as `Growth` has it.
    """
    before, unused = b"\1" * (span - slots - rows), slots - len(visible)
    mask = b"".join((before + row).ljust(span, b"\0") for row in visible) + b"\1" * span * unused
    used = tuple(row.count(1) - 1 - rows for row in visible) if depths is None else depths
    return mask, used + (0,) * unused
