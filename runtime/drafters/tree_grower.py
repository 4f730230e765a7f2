"""Growing a token tree with a Frontier engine: some slots a call, each under rows that earlier calls left.

The tree's rows are scratch past the end of a cache; nothing here commits them.
"""

from __future__ import annotations

from collections.abc import Sequence as Tokens
from dataclasses import dataclass

from ..draft import Outputs
from ..engine import Engine


@dataclass(frozen=True)
class Call:
    """Slots that run at once below `grown` rows of the tree; the outputs' rows are theirs, in order."""

    slots: tuple[int, ...]
    grown: int
    seen: tuple[bytes, ...]

    def run(self, engine: Engine, rows: int, tokens: Tokens[int]) -> Outputs:
        """Run the slots' tokens in a tree that has so many rows before it."""
        return engine.grow(rows, [tokens[s] for s in self.slots], self.grown, self.seen)


class TreeGrower:
    """The calls that grow a tree, in order. Slot 0 comes first, below slot -1, which stands for the rows before it."""

    def __init__(self) -> None:
        self.grown = 0
        self.seen = {-1: b""}  # slot -> a byte for each of the tree's rows up to its own, 1 where it sees that row

    def call(self, slots: Tokens[int], parents: Tokens[int]) -> Call:
        """Run slots whose parents were run before. parents: of all of the tree's slots."""
        for row, slot in enumerate(slots, self.grown):
            self.seen[slot] = self.seen[parents[slot]].ljust(row, b"\0") + b"\1"
        call = Call(tuple(slots), self.grown, tuple([self.seen[s] for s in slots]))
        self.grown += len(slots)
        return call
