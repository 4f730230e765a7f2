"""Static trees by a trained head that reads trigrams (Chimera, Zeng et al. 2024, arXiv:2402.15758).

The head's state ends with room for the two tokens before the slot's own. They are written here as digits to the base
128, which all types of numbers hold exactly.

S  size of a state
"""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Sequence as Tokens

import numpy as np

from ..call import Growth
from ..draft import Draft, Outputs
from ..draft_head import reading_engines, running_head
from ..engine import Engine
from ..sequence import Sequence
from ..tree import Tree
from ..tree_grower import TreeGrower
from . import Drafter, Drafting, Proposal

BASE, DIGITS = 128, 3  # A token's digits. A vocabulary has fewer than 128 ** 3 tokens.
TOKENS_BEFORE = 2  # of a trigram


class Chimera(Drafter):
    """A drafter that fills one static tree level by level: a child of rank r gets the r-th likeliest token."""

    def __init__(self, draft: Engine, feed: Engine, prefill: Engine, tree: Tokens[int]) -> None:
        """Plan the calls that fill the tree.

        Args:
            draft: a Frontier engine of the head.
            feed: an engine of the head for the tokens of a step.
            prefill: an engine of the head for many tokens.
            tree: the parent vector that is baked into the verify engine.
        """
        self.tree, grower = Tree(tuple(tree)), TreeGrower()
        self.engine, self.engines = draft, reading_engines(draft, feed, prefill)
        grower.grow([0], self.tree.parents)  # The root's row is committed.
        self.growths: list[list[Growth]] = []  # By level.
        for depth in range(1, int(self.tree.depth.max())):
            level = [slot for slot, below in enumerate(self.tree.children) if below and self.tree.depth[slot] == depth]
            parts = [level[start : start + draft.slots] for start in range(0, len(level), draft.slots)]
            self.growths.append([grower.grow(part, self.tree.parents) for part in parts])

    def open(self, seq: Sequence) -> ChimeraDrafting:
        return ChimeraDrafting(self, seq)


class ChimeraDrafting(Drafting[Chimera]):
    """The trees of one request."""

    def propose(self, room: int) -> Proposal:
        drafter, seq = self.drafter, self.seq
        tree = drafter.tree
        root = (yield from running_head(drafter.engines, seq, self._read)) if room and tree.slots > 1 else None
        if root is None:
            return Draft.chain([seq.pending])
        tokens = [seq.pending] * tree.slots
        states: dict[int, np.ndarray] = {}  # What the children of a slot read.
        self._fill(tokens, states, root.outputs, [0])
        for level in drafter.growths[: room - 1]:
            for growth in level:
                state_NS = self._read_drafted(tokens, states, [tree.parents[slot] for slot in growth.slots])
                outputs = yield growth.call(drafter.engine, root.cache, tokens, 1, {"state": state_NS})
                self._fill(tokens, states, outputs, growth.slots)
        return Draft(tuple(tokens), tree)

    def _read(self, states_NS: np.ndarray, start: int) -> np.ndarray:
        """Return what rows of the text read. Row i is token i + 1; the first token also stands for one before it.

        Args:
            states_NS: the target's states for these rows.
            start: the first row.
        """
        tokens, rows = self.seq.tokens, range(start, start + len(states_NS))
        return with_tokens(states_NS, [(tokens[row], tokens[max(0, row - 1)]) for row in rows])

    def _read_drafted(self, tokens: Tokens[int], states: Mapping[int, np.ndarray], parents: Tokens[int]) -> np.ndarray:
        """Return what slots of the tree read, [N, S].

        Args:
            tokens: the token of each slot.
            states: by slot, what the head returned for its children.
            parents: the parents of the slots.
        """
        above = self.drafter.tree.parents
        pairs = [(tokens[slot], tokens[above[slot]] if slot else self.seq.tokens[-2]) for slot in parents]
        return with_tokens(np.stack([states[slot] for slot in parents]), pairs)

    def _fill(self, tokens: list[int], states: dict[int, np.ndarray], outputs: Outputs, slots: Tokens[int]) -> None:
        """Give the children of slots the likeliest tokens, and keep what they read. Row i belongs to `slots[i]`."""
        ranks, top_ids, _ = outputs.ranked()
        assert outputs.next_state_NS is not None
        for row, slot in enumerate(slots):
            states[slot] = outputs.next_state_NS[row].copy()
            for rank, child in enumerate(self.drafter.tree.children[slot][:ranks]):
                tokens[child] = top_ids[row, rank]


def with_tokens(states_NS: np.ndarray, before: Tokens[tuple[int, int]]) -> np.ndarray:
    """Return states [N, S] with tokens in their last numbers.

    Args:
        states_NS: the states.
        before: for each slot the two tokens before its own, the last one first.
    """
    digits = digits_of(np.array(before)).reshape(len(before), -1)
    return np.concatenate([states_NS[:, : -digits.shape[1]], digits], 1)


def digits_of(tokens: np.ndarray) -> np.ndarray:
    """Return the digits of tokens, the lowest one first, float32 with one dimension more."""
    digits: np.ndarray = (tokens[..., None] // BASE ** np.arange(DIGITS) % BASE).astype(np.float32)
    return digits
