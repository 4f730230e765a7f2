"""Plan the growth of a token tree by a Frontier engine: each call runs some slots below rows that earlier calls left.

The tree's rows are scratch, past the end of a cache. Nothing here commits them.
"""

from __future__ import annotations

from collections.abc import Sequence as Tokens

from .call import Growth


class TreeGrower:
    """A planner of the calls that grow one tree, in order. The first call runs slot 0, the pending token."""

    def __init__(self) -> None:
        self.rows = 0  # What the planned calls leave.
        # By slot, what `Growth.visible` holds. Slot -1 stands for the committed rows, which every slot sees.
        self.visible = {-1: b""}

    def grow(self, slots: Tokens[int], parents: Tokens[int]) -> Growth:
        """Plan the next part of the tree.

        Args:
            slots: the slots to run. Earlier calls must have run their parents.
            parents: the parent vector of the whole tree.
        """
        for row, slot in enumerate(slots, self.rows):
            self.visible[slot] = self.visible[parents[slot]].ljust(row, b"\0") + b"\1"
        growth = Growth(tuple(slots), self.rows, tuple([self.visible[slot] for slot in slots]))
        self.rows += len(slots)
        return growth
