"""One block, ready to run: tokens in, outputs out, rows kept.

N  slots of the block      T  span of a Masked block
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from collections.abc import Sequence as Tokens
from typing import Protocol

import numpy as np

from .block import Block, Masked, Parents
from .draft import Outputs
from .sequence import Cache, Store
from .tree import Tree


class Runner(Protocol):
    """What a backend provides: host arrays bound once to an engine's named inputs and outputs."""

    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]

    def run(self) -> None:
        """Read the inputs, update the rows of the cache in place, write the outputs."""


class Engine:
    """A block and what runs it. `calls` and `seconds` count what was spent in the runner."""

    def __init__(self, name: str, block: Block, runner: Runner, store: Store) -> None:
        self.name, self.block, self.runner, self.store = name, block, runner, store
        self.slots = block.slots
        self.calls, self.seconds = 0, 0.0
        self.tokens: Tokens[int] = ()
        self.outputs = _outputs(runner.outputs)

    def run(self, cache: Cache, tokens: Tokens[int], tree: Tree) -> Outputs:
        """Run `tokens` in the slots of `tree`, after the rows of `cache`. The block must hold the tree."""
        if isinstance(self.block.topology, Parents):
            self.runner.inputs["parents"][: tree.slots] = tree.parents
        elif isinstance(self.block.topology, Masked):
            return self.grow(cache, tokens, np.tri(tree.slots, dtype=bool), np.arange(tree.slots))
        return self._run(cache, tokens)

    def grow(self, cache: Cache, tokens: Tokens[int], mask: np.ndarray, depth: np.ndarray) -> Outputs:
        """Run a Masked block's slots below a tree that grows in the scratch rows at the end of `cache`.

        mask: [n, m] bool, what each of the n tokens sees of the last m rows, the n new ones included; it sees all
        rows before those. depth: [n], a token's position less `len(cache)`.
        """
        n, m = mask.shape
        mask_NT = self.runner.inputs["mask"]
        mask_NT[:] = True
        first = mask_NT.shape[1] - self.slots + n - m
        mask_NT[:n, first : first + m] = mask
        mask_NT[:n, first + m :] = False
        depth_N = self.runner.inputs["depth"]
        depth_N[:n], depth_N[n:] = depth, 0
        return self._run(cache, tokens)

    def extend(self, cache: Cache, tokens: Tokens[int]) -> int:
        """Run `tokens` one after another and keep them all; return the outputs' row of the last one."""
        for start in range(0, len(tokens), self.slots):
            chunk = tokens[start : start + self.slots]
            self.run(cache, chunk, Tree.chain(len(chunk)))
            self.keep(cache, range(len(chunk)))
        return 0 if self.block.last_row else (len(tokens) - 1) % self.slots

    def keep(self, cache: Cache, slots: Tokens[int]) -> None:
        """Commit the rows of `slots`, ascending, of the last run."""
        cache.keep([self.tokens[s] for s in slots], slots)

    def _run(self, cache: Cache, tokens: Tokens[int]) -> Outputs:
        inputs = self.runner.inputs
        inputs["input_ids"][0, : len(tokens)] = tokens
        inputs["past_len"][0] = len(cache)
        if self.block.last_row:
            inputs["row"][0] = len(tokens) - 1
        start = time.perf_counter()
        self.runner.run()
        self.seconds += time.perf_counter() - start
        self.calls += 1
        self.tokens = tokens
        return self.outputs


def _outputs(arrays: Mapping[str, np.ndarray]) -> Outputs:
    """The first sequence of a batch of one."""
    one = {name: array[0] for name, array in arrays.items()}
    hidden = {name: array for name, array in one.items() if name.startswith("hidden")}
    return Outputs(
        one.get("ids", np.empty(0, np.int64)), one.get("logits"), one.get("top_ids"), one.get("top_logprobs"), hidden
    )
