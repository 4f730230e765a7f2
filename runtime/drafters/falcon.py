"""Static trees by a trained head that makes two tokens in one call (Falcon, Gao et al. 2024, arXiv:2412.12639).

The tree grows by two levels a call. A call runs blocks of two slots: a node and its child. The outputs of the second
slot are two guesses. The first one fills the children of that node, the second one fills theirs.

What a slot reads beside its token has six equal parts: a state, four that the head remembers of the slots before, and
one that begins with 1 if the slot starts from these, or with 0 if the slot before it in the call says more. What it
returns: its first guess, what it remembers, and its second guess.

S  size of a state
"""

from __future__ import annotations

from collections.abc import Sequence as Tokens
from typing import NamedTuple

import numpy as np

from ..call import Growth
from ..draft import Draft, Outputs
from ..draft_head import running_head
from ..engine import Engine
from ..sequence import Sequence
from ..tree import Tree
from ..tree_grower import TreeGrower
from . import Drafter, Drafting, Proposal

BLOCK = 2  # Slots of a block, and levels that a call makes.
PARTS = 6  # Of what a slot reads.
MEMORY = "falcon_memory"  # The name under which the head's cache keeps what the head returned of each row.


class BlockCall(NamedTuple):
    """A call that runs blocks.

    Attributes:
        growth: where the slots of the call stand.
        ends: the node in the last slot of each block.
    """

    growth: Growth
    ends: tuple[int, ...]


class Falcon(Drafter):
    """A drafter that fills one static tree, two levels a call. The first two come with the call of accepted tokens."""

    def __init__(self, draft: Engine, feed: Engine, prefill: Engine, tree: Tokens[int]) -> None:
        """Plan the calls that fill the tree.

        Args:
            draft: a Frontier engine of the head, with two slots for each block.
            feed: an engine of the head for the tokens of a step.
            prefill: an engine of the head for many tokens.
            tree: the parent vector that is baked into the verify engine.
        """
        self.tree, grower = Tree(tuple(tree)), TreeGrower()
        self.engine, self.engines = draft, (feed, prefill)
        self.nodes, parents = [0], [-1]  # The slots of all calls, with the node of the tree that each runs.
        grower.grow([0], parents)  # The root's row is committed.
        slot_of = {0: 0}  # The last slot of the block that ends with a node.
        self.levels: list[list[BlockCall]] = []
        at_once = max(1, draft.slots // BLOCK)
        for depth in range(BLOCK, int(self.tree.depth.max()), BLOCK):
            ends = [node for node, below in enumerate(self.tree.children) if below and self.tree.depth[node] == depth]
            calls: list[BlockCall] = []
            for start in range(0, len(ends), at_once):
                part, first = ends[start : start + at_once], len(self.nodes)
                for end in part:
                    middle = self.tree.parents[end]
                    parents += [slot_of[self.tree.parents[middle]], len(self.nodes)]
                    self.nodes += [middle, end]
                    slot_of[end] = len(self.nodes) - 1
                growth = grower.grow(range(first, len(self.nodes)), parents)
                calls.append(BlockCall(growth, tuple(part)))
            self.levels.append(calls)

    def open(self, seq: Sequence) -> FalconDrafting:
        return FalconDrafting(self, seq)


class FalconDrafting(Drafting[Falcon]):
    """The trees of one request."""

    def propose(self, room: int) -> Proposal:
        drafter, seq = self.drafter, self.seq
        tree = drafter.tree
        is_worth = room > 0 and tree.slots > 1
        root = (yield from running_head(drafter.engines, seq, self._read, keep=MEMORY)) if is_worth else None
        if root is None:
            return Draft.chain([seq.pending])
        tokens = [seq.pending] * tree.slots
        states: dict[int, np.ndarray] = {}  # By node, what the head returned of the block that it ends.
        self._fill(tokens, states, root.outputs, [0], [0])
        for calls in drafter.levels[: (room - 1) // BLOCK]:
            for call in calls:
                before = [states[tree.parents[tree.parents[end]]] for end in call.ends]
                state_NS = np.concatenate([_states_of_block(state) for state in before])
                tokens_of_slots = [tokens[node] for node in drafter.nodes]
                outputs = yield call.growth.call(drafter.engine, root.cache, tokens_of_slots, 1, {"state": state_NS})
                rows = range(BLOCK - 1, BLOCK * len(call.ends), BLOCK)
                self._fill(tokens, states, outputs, rows, call.ends)
        return Draft(tuple(tokens), tree)

    def _read(self, states_NS: np.ndarray, start: int) -> np.ndarray:
        """Return what rows of the text read. The first one starts from what the head remembers of the row before it.

        Args:
            states_NS: the target's states for these rows.
            start: the first row.
        """
        remembered = self.seq.caches[self.drafter.engine.block.cache].states.get(MEMORY)
        if not start or remembered is None:
            return states_NS
        rows, size = states_NS.copy(), states_NS.shape[1] // PARTS
        rows[0] = _starting(rows[0, :size], remembered[start - 1])
        return rows

    def _fill(
        self,
        tokens: list[int],
        states: dict[int, np.ndarray],
        outputs: Outputs,
        rows: Tokens[int],
        ends: Tokens[int],
    ) -> None:
        """Give two levels below the ends of blocks the likeliest tokens. `rows` are the rows of the ends."""
        children = self.drafter.tree.children
        assert outputs.next_state_NS is not None and outputs.top_ids_NK is not None
        for row, end in zip(rows, ends, strict=True):
            states[end] = outputs.next_state_NS[row].copy()
            first, second = outputs.top_ids_NK[row].tolist()
            for rank, child in enumerate(children[end][: len(first)]):
                tokens[child] = first[rank]
                for below, grandchild in enumerate(children[child][: len(second)]):
                    tokens[grandchild] = second[below]


def _states_of_block(state: np.ndarray) -> np.ndarray:
    """Return what the two slots of a block read, [2, S], from what the head returned of the slot before them, [S].

    The first slot starts from what the head remembers, and the second one from the first.
    """
    size = len(state) // PARTS
    second = np.zeros_like(state)
    second[:size] = state[(PARTS - 1) * size : PARTS * size]
    return np.stack([_starting(state[:size], state), second])


def _starting(guess: np.ndarray, before: np.ndarray) -> np.ndarray:
    """Return what a slot reads that starts from what the head returned of the slot before it, [S].

    Args:
        guess: the state beside the slot's token, [S / 6].
        before: what the head returned.
    """
    size = len(before) // PARTS
    state = np.zeros_like(before)
    state[:size], state[size : (PARTS - 1) * size] = guess, before[size : (PARTS - 1) * size]
    state[(PARTS - 1) * size] = 1.0
    return state
