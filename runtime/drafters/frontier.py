"""Growing a token tree with a draft engine: some slots a call, each under rows that earlier calls left.

The tree's rows are scratch past the end of a cache; nothing here commits them.
"""

from __future__ import annotations

from collections.abc import Sequence as Tokens

import numpy as np

from ..draft import Outputs
from ..engine import Engine
from ..sequence import Cache, Sequence


class Frontier:
    """A tree under construction. Slot 0, the pending token, is run at once.

    engine: a Masked block, over the target's rows or with a cache of its own.
    """

    def __init__(self, engine: Engine, cache: Cache, seq: Sequence) -> None:
        self.engine, self.cache, self.sampling = engine, cache, seq.sampling
        row = engine.extend(cache, [*cache.sync(seq.tokens[:-1]), seq.pending])
        self.committed = len(cache)
        self.seen: dict[int, tuple[int, ...]] = {0: ()}  # slot -> the scratch rows that it sees, its own last
        self.top: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        self.odds: dict[int, np.ndarray] = {}
        self._read(0, engine.outputs, row)

    def run(self, slots: Tokens[int], tokens: Tokens[int], parents: Tokens[int]) -> None:
        """Run slots whose parents were run before; `tokens` and `parents` are theirs, in the same order."""
        for start in range(0, len(slots), self.engine.slots):
            self._run(*(part[start : start + self.engine.slots] for part in (slots, tokens, parents)))

    def _run(self, slots: Tokens[int], tokens: Tokens[int], parents: Tokens[int]) -> None:
        grown = len(self.cache) - self.committed
        mask = np.zeros((len(slots), grown + len(slots)), dtype=bool)
        for i, (slot, parent) in enumerate(zip(slots, parents, strict=True)):
            self.seen[slot] = (*self.seen[parent], grown + i)
            mask[i, self.seen[slot]] = True
        depth = np.array([len(self.seen[s]) - 1 - grown for s in slots])
        outputs = self.engine.grow(self.cache, tokens, mask, depth)
        self.engine.keep(self.cache, range(len(slots)))
        for row, slot in enumerate(slots):
            self._read(slot, outputs, row)

    def _read(self, slot: int, outputs: Outputs, row: int) -> None:
        ids, odds = outputs.top(row)
        self.top[slot] = ids.copy(), odds
        if not self.sampling.greedy and outputs.logits_NV is not None:
            self.odds[slot] = self.sampling.odds(outputs.logits_NV[row])

    def close(self) -> None:
        """Forget the tree's rows."""
        del self.cache.tokens[self.committed :]
