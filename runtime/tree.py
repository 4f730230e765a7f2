"""Which slots see which: a tree, written as its parent vector.

Slot 0 is the pending token. A slot sees the committed rows, its ancestors and itself, and stands at position
`rows + depth`. Chains, combs, token trees and look-ahead windows are all this one thing.

    N  slots of the tree
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from .errors import TreeError


@dataclass(frozen=True)
class Tree:
    """`parents[0] == -1` and `0 <= parents[i] < i`. Raises TreeError for anything else."""

    parents: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.parents[:1] != (-1,):
            raise TreeError(f"not a tree: slot 0 must have parent -1 in {self.parents!r}")
        for slot, parent in enumerate(self.parents[1:], 1):
            if not isinstance(parent, (int, np.integer)) or not 0 <= parent < slot:
                raise TreeError(f"not a tree: slot {slot} has parent {parent!r}; give it one of 0..{slot - 1}")

    @staticmethod
    @cache
    def chain(slots: int) -> Tree:
        """The pending token and `slots - 1` tokens one after another."""
        return Tree(tuple(range(-1, slots - 1)))

    @classmethod
    def from_paths(cls, paths: Sequence[Sequence[int]]) -> Tree:
        """A tree literal as Medusa and vLLM write it: `[(0,), (1,), (0, 0)]`, each path a list of sibling ranks.

        Slots stand in order of depth, then of path. Raises TreeError where a path's parent or an elder sibling
        is missing, or a path is written twice.
        """
        for path in paths if isinstance(paths, (list, tuple)) else [paths]:
            if not (isinstance(path, (list, tuple)) and path and all(type(r) is int and r >= 0 for r in path)):
                raise TreeError(f"not a tree: {path!r} is no path; write one rank, 0 or more, for each level")
        wanted = [tuple(p) for p in paths]
        at: dict[tuple[int, ...], int] = {(): 0}
        parents = [-1]
        for path in sorted(wanted, key=lambda p: (len(p), p)):
            if path in at:
                raise TreeError(f"not a tree: path {list(path)} is written twice; remove one")
            elder = (*path[:-1], path[-1] - 1)
            if path[:-1] not in at or (path[-1] and elder not in at):
                missing = path[:-1] if path[:-1] not in at else elder
                raise TreeError(f"not a tree: path {list(path)} needs path {list(missing)}; add it")
            at[path] = len(parents)
            parents.append(at[path[:-1]])
        return cls(tuple(parents))

    @classmethod
    def best_first(cls, rates: Sequence[float], slots: int, depth: int = 64) -> Tree:
        """The `slots` nodes most likely to be reached, if a child of rank r is accepted with `rates[r]`.

        Sequoia's dynamic programme gives the same tree when the rates do not increase (Chen et al. 2024,
        arXiv:2402.12374); children stand by rank.
        """
        parents, level = [-1], [0]
        heap = [(-rate, rank, 0) for rank, rate in enumerate(rates[:1])]
        while heap and len(parents) < slots:
            negative, rank, parent = heapq.heappop(heap)
            reach = -negative
            slot = len(parents)
            parents.append(parent)
            level.append(level[parent] + 1)
            if rank + 1 < len(rates) and rates[rank]:
                heapq.heappush(heap, (-reach / rates[rank] * rates[rank + 1], rank + 1, parent))
            if level[slot] < depth:
                heapq.heappush(heap, (-reach * rates[0], 0, slot))
        return cls(tuple(parents))

    @classmethod
    def best(cls, rates: Sequence[float], slots: int, depth: int) -> Tree:
        """Of the trees of at most so many slots and levels, one that has most slots right, if a child of rank r is
        right with `rates[r]`, in whatever order the rates are.

        Sequoia's dynamic programme (Chen et al. 2024, arXiv:2402.12374): a slot shares what is left among its
        children, each of which makes the best of its share.
        """

        @cache
        def children(rank: int, left: int, levels: int) -> tuple[float, tuple[int, ...]]:
            """What children from `rank` on are worth at most, and the slots that each gets."""
            best: tuple[float, tuple[int, ...]] = (0.0, ())
            if rank < len(rates) and levels:
                for share in range(1, left + 1):
                    younger, shares = children(rank + 1, left - share, levels)
                    value = rates[rank] * (1 + children(0, share - 1, levels - 1)[0]) + younger
                    best = max(best, (value, (share, *shares)))
            return best

        parents, grown = [-1], [(0, slots - 1, depth)]
        for slot, left, levels in grown:
            for share in children(0, left, levels)[1]:
                grown.append((len(parents), share - 1, levels - 1))
                parents.append(slot)
        return cls(tuple(parents))

    @classmethod
    def window(cls, width: int, rows: int, guesses: int) -> Tree:
        """Lookahead decoding's slots (Fu et al. 2024, arXiv:2402.02057), which are a tree.

        `rows` x `width` window slots, row by row: row 0 is a chain below the pending token, and slot (row, column)
        hangs below (row - 1, column), so that it sees row 0 up to its column and its own column above it. Then
        `guesses` chains of `rows` slots below the pending token, where n-grams are verified.
        """
        parents = [-1, *range(width)]
        for row in range(1, rows):
            parents += range(1 + (row - 1) * width, 1 + row * width)
        for _ in range(guesses):
            parents += [0, *range(len(parents), len(parents) + rows - 1)]
        return cls(tuple(parents))

    @property
    def slots(self) -> int:
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
        """[N] int64: how far below the pending token a slot stands."""
        depth: np.ndarray = self.mask.sum(1) - 1
        depth.flags.writeable = False
        return depth

    @cached_property
    def children(self) -> tuple[tuple[int, ...], ...]:
        """The slots below each slot, elder first."""
        below: list[list[int]] = [[] for _ in self.parents]
        for slot, parent in enumerate(self.parents[1:], 1):
            below[parent].append(slot)
        return tuple(map(tuple, below))

    @cached_property
    def rank(self) -> tuple[int, ...]:
        """Each slot's place among its siblings; 0 for slot 0."""
        return tuple(0 if p < 0 else self.children[p].index(s) for s, p in enumerate(self.parents))

    @property
    def paths(self) -> tuple[tuple[int, ...], ...]:
        """The literal that `from_paths` takes, in slot order."""
        paths: list[tuple[int, ...]] = [()]
        for slot, parent in enumerate(self.parents[1:], 1):
            paths.append((*paths[parent], self.rank[slot]))
        return tuple(paths[1:])

    @cached_property
    def is_chain(self) -> bool:
        return self.parents == tuple(range(-1, self.slots - 1))

    def fits(self, other: Tree) -> bool:
        """Whether `other` fits in this tree's first slots."""
        return self.parents[: other.slots] == other.parents
