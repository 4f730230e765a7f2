"""Grow a token tree with a Frontier engine: each call runs some slots below rows that earlier calls left.

The tree's rows are scratch, past the end of a cache. Nothing here commits them.
"""

from __future__ import annotations

from collections.abc import Sequence as Tokens
from dataclasses import dataclass

from .draft import Outputs
from .engine import Engine


@dataclass(frozen=True)
class Call:
    """One call of the engine.

    Attributes:
        slots: the slots of the tree that it runs. Row i of the outputs belongs to `slots[i]`.
        tree_rows: how many rows of the tree earlier calls left.
        visible: for each slot a byte for each row of the tree, up to its own: 1 if the slot sees that row.
    """

    slots: tuple[int, ...]
    tree_rows: int
    visible: tuple[bytes, ...]

    def run(self, engine: Engine, rows: int, tokens: Tokens[int]) -> Outputs:
        """Run the call.

        Args:
            engine: an engine of a Frontier block.
            rows: how many committed rows precede the tree.
            tokens: the tokens of all slots of the tree so far.
        """
        return engine.grow(rows, [tokens[slot] for slot in self.slots], self.tree_rows, self.visible)


class TreeGrower:
    """A planner of the calls that grow one tree, in order. The first call runs slot 0, the pending token."""

    def __init__(self) -> None:
        self.tree_rows = 0
        # By slot, what `Call.visible` holds. Slot -1 stands for the committed rows, which every slot sees.
        self.visible = {-1: b""}

    def call(self, slots: Tokens[int], parents: Tokens[int]) -> Call:
        """Plan the next call.

        Args:
            slots: the slots to run. Earlier calls must have run their parents.
            parents: the parent vector of the whole tree.
        """
        for row, slot in enumerate(slots, self.tree_rows):
            self.visible[slot] = self.visible[parents[slot]].ljust(row, b"\0") + b"\1"
        call = Call(tuple(slots), self.tree_rows, tuple([self.visible[slot] for slot in slots]))
        self.tree_rows += len(slots)
        return call
