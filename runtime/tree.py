"""Trees of slots, written as parent vectors. A tree says which slots see which.

Slot 0 is the pending token. A slot sees the committed rows, its ancestors and itself. Its position in the text is
`rows + depth`. Chains, combs, token trees and lookahead windows are all trees.

    N  slots of the tree
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from .errors import TreeError

MOST_SLOTS = 4096  # Masks have the square of it in bytes. The widest engines have some hundred.


@dataclass(frozen=True)
class Tree:
    """A tree of slots.

    Attributes:
        parents: the parent of each slot: `parents[0] == -1`, and `0 <= parents[i] < i` for the others. The constructor
            raises TreeError for anything else.
    """

    parents: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.parents) > MOST_SLOTS:
            raise TreeError(f"a tree of {len(self.parents)} slots; give it {MOST_SLOTS} at most")
        if self.parents[:1] != (-1,):
            raise TreeError(f"not a tree: slot 0 must have parent -1 in {self.parents!r}")
        for slot, parent in enumerate(self.parents[1:], 1):
            if not isinstance(parent, (int, np.integer)) or not 0 <= parent < slot:
                raise TreeError(f"not a tree: slot {slot} has parent {parent!r}; give it one of 0..{slot - 1}")

    @staticmethod
    @cache
    def chain(slots: int) -> Tree:
        """Make a tree without branches: the pending token, and `slots - 1` tokens one after another."""
        return Tree(tuple(range(-1, slots - 1)))

    @classmethod
    def from_paths(cls, paths: Sequence[Sequence[int]]) -> Tree:
        """Make a tree from a literal as Medusa and vLLM write it, such as `[(0,), (1,), (0, 0)]`.

        Args:
            paths: for each slot but slot 0 the ranks among siblings on the way down to it. The slots of the tree are
                in order of depth, then of path.

        Raises:
            TreeError: a path's parent or an elder sibling is missing, a path is there twice, or something is no path.
        """
        for path in paths if isinstance(paths, (list, tuple)) else [paths]:
            if not (isinstance(path, (list, tuple)) and path and all(type(r) is int and r >= 0 for r in path)):
                raise TreeError(f"not a tree: {path!r} is not a path; write one rank, 0 or more, for each level")
        slot_of: dict[tuple[int, ...], int] = {(): 0}
        parents = [-1]
        for path in sorted(map(tuple, paths), key=lambda path: (len(path), path)):
            if path in slot_of:
                raise TreeError(f"not a tree: path {list(path)} is written twice; remove one")
            parent, elder = path[:-1], (*path[:-1], path[-1] - 1)
            if parent not in slot_of:
                raise TreeError(f"not a tree: path {list(path)} needs path {list(parent)}; add it")
            if path[-1] and elder not in slot_of:
                raise TreeError(f"not a tree: path {list(path)} needs path {list(elder)}; add it")
            slot_of[path] = len(parents)
            parents.append(slot_of[parent])
        return cls(tuple(parents))

    @classmethod
    def best_first(cls, rates: Sequence[float], slots: int, depth: int = 64) -> Tree:
        """Make the tree of the nodes that are most likely to be reached.

        If the rates do not increase, Sequoia's dynamic programme gives a tree that is as good (Chen et al. 2024,
        arXiv:2402.12374; see `best`).

        Args:
            rates: a child of rank r is accepted with probability `rates[r]` if its parent is.
            slots: slots of the tree; fewer if `rates` and `depth` allow no more.
            depth: levels below slot 0 at most.
        """
        parents, level = [-1], [0]
        # Nodes that could be next: the probability to reach one, negative for heapq, its rank, and its parent's slot.
        heap = [(-rate, rank, 0) for rank, rate in enumerate(rates[:1])]
        while heap and len(parents) < slots:
            negative, rank, parent = heapq.heappop(heap)
            reach, slot = -negative, len(parents)
            parents.append(parent)
            level.append(level[parent] + 1)
            if rank + 1 < len(rates) and rates[rank]:
                heapq.heappush(heap, (-reach / rates[rank] * rates[rank + 1], rank + 1, parent))
            if level[slot] < depth:
                heapq.heappush(heap, (-reach * rates[0], 0, slot))
        return cls(tuple(parents))

    @classmethod
    def best(cls, rates: Sequence[float], slots: int, depth: int) -> Tree:
        """Make a tree with the largest expected number of right slots, for rates in any order.

        This is Sequoia's dynamic programme (Chen et al. 2024, arXiv:2402.12374). A slot shares the slots below it among
        its children, and each child makes the best of its share.

        Args:
            rates: a child of rank r is right with probability `rates[r]` if its parent is.
            slots: slots of the tree at most.
            depth: levels below slot 0 at most.
        """

        @cache
        def children(rank: int, left: int, levels: int) -> tuple[float, tuple[int, ...]]:
            """Return the expected right slots below the children from `rank` on, and the slots that each gets."""
            best: tuple[float, tuple[int, ...]] = (0.0, ())
            if rank < len(rates) and levels:
                for share in range(1, left + 1):
                    younger, shares = children(rank + 1, left - share, levels)
                    value = rates[rank] * (1 + children(0, share - 1, levels - 1)[0]) + younger
                    best = max(best, (value, (share, *shares)))
            return best

        parents = [-1]
        queue = [(0, slots - 1, depth)]  # Slots, each with how many slots and levels may come below it.
        for slot, left, levels in queue:
            for share in children(0, left, levels)[1]:
                queue.append((len(parents), share - 1, levels - 1))
                parents.append(slot)
        return cls(tuple(parents))

    @classmethod
    def by_depth(cls, rates: Sequence[Sequence[float]], slots: int) -> Tree:
        """Make the tree of the nodes that are most likely to be reached, by rates that differ from level to level.

        Args:
            rates: `rates[d][r]`: a child of rank r in level d + 1 is accepted so often if its parent is. No node lies
                deeper than there are rates.
            slots: slots of the tree; fewer if the rates allow no more.
        """
        parents, depths, reach = [-1], [0], [1.0]
        used: dict[int, int] = {}
        while len(parents) < slots:
            options = [
                (reach[slot] * rates[depths[slot]][used.get(slot, 0)], -slot)
                for slot in range(len(parents))
                if depths[slot] < len(rates) and used.get(slot, 0) < len(rates[depths[slot]])
            ]
            if not options:
                break
            value, negative = max(options)
            parent = -negative
            used[parent] = used.get(parent, 0) + 1
            parents.append(parent)
            depths.append(depths[parent] + 1)
            reach.append(value)
        return cls(tuple(parents))

    @classmethod
    def window(cls, width: int, rows: int, guesses: int) -> Tree:
        """Make the tree of lookahead decoding (Fu et al. 2024, arXiv:2402.02057).

        First come the slots of the window, row by row. Row 0 is a chain below the pending token, and slot (row, column)
        is the child of slot (row - 1, column). So it sees row 0 up to its column, and its own column above it. After
        the window come chains below the pending token, where n-grams are verified.

        Args:
            width: columns of the window.
            rows: rows of the window, and slots of each chain.
            guesses: how many chains.
        """
        parents = [-1, *range(width)]
        for row in range(1, rows):
            parents += range(1 + (row - 1) * width, 1 + row * width)
        for _ in range(guesses):
            parents += [0, *range(len(parents), len(parents) + rows - 1)]
        return cls(tuple(parents))

    @property
    def slots(self) -> int:
        """How many slots the tree has, N."""
        return len(self.parents)

    @cached_property
    def mask(self) -> np.ndarray:
        """[N, N] bool: `mask[i, j]` is whether slot i sees slot j."""
        mask = np.eye(self.slots, dtype=bool)
        for slot, parent in enumerate(self.parents[1:], 1):
            mask[slot] |= mask[parent]
        mask.flags.writeable = False
        return mask

    @cached_property
    def depth(self) -> np.ndarray:
        """[N] int64: how many levels each slot is below the pending token."""
        depth: np.ndarray = self.mask.sum(1) - 1
        depth.flags.writeable = False
        return depth

    @cached_property
    def children(self) -> tuple[tuple[int, ...], ...]:
        """For each slot its children, in order of slot."""
        below: list[list[int]] = [[] for _ in self.parents]
        for slot, parent in enumerate(self.parents[1:], 1):
            below[parent].append(slot)
        return tuple(map(tuple, below))

    @cached_property
    def rank(self) -> tuple[int, ...]:
        """For each slot its place among its siblings, from 0; 0 for slot 0."""
        return tuple(0 if p < 0 else self.children[p].index(s) for s, p in enumerate(self.parents))

    @property
    def paths(self) -> tuple[tuple[int, ...], ...]:
        """The literal of this tree for `from_paths`, in order of slot."""
        paths: list[tuple[int, ...]] = [()]
        for slot, parent in enumerate(self.parents[1:], 1):
            paths.append((*paths[parent], self.rank[slot]))
        return tuple(paths[1:])

    @cached_property
    def is_chain(self) -> bool:
        """Whether the tree has no branches, and its slots are in order of depth."""
        return self.parents == tuple(range(-1, self.slots - 1))

    def fits(self, other: Tree) -> bool:
        """Return whether `other` is this tree's first slots, so that a block of this tree can run it."""
        return self.parents[: other.slots] == other.parents
