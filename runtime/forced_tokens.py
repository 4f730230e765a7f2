"""A drafting of the tokens that a grammar forces."""

from __future__ import annotations

from collections.abc import Sequence as Tokens
from typing import Any

import numpy as np

from .draft import Accepted, Draft, Verified
from .drafters import Drafting, Proposal
from .engine import Engine
from .tree import Tree


class ForcedTokens(Drafting[Any]):
    """A drafting that wraps another one. Where a processor of the request forces the next tokens, they are the draft.

    The target verifies them like any others. So a grammar costs no step for the parts of an answer that it dictates,
    such as the names of a JSON schema.

    Attributes:
        drafting: the drafting that it wraps, which drafts where there is a choice.
    """

    def __init__(self, drafting: Drafting[Any], verifiers: Tokens[Engine], sample: bool = False) -> None:
        """Find out what the target's engines can run.

        Args:
            drafting: the drafting to wrap.
            verifiers: the target's engines, narrowest first.
            sample: state distributions in the drafts of requests that sample, for a rule that compares them.
        """
        super().__init__(drafting.drafter, drafting.seq)
        self.drafting, self.sample = drafting, sample
        chains = [Tree.chain(engine.slots) for engine in verifiers if engine.block.fits(Tree.chain(engine.slots))]
        trees = [e.block.tree for e in verifiers if e.block.tree is not None]
        self.tree = max((*chains, *trees), key=lambda tree: int(tree.depth.max()), default=Tree.chain(1))
        self._own = False  # Whether the last draft was of forced tokens.

    def propose(self, room: int) -> Proposal:
        seq = self.seq
        tokens = seq.processing.forced()[:room] if seq.processing else ()
        self._own = len(tokens) > 0
        if not self._own:
            return (yield from self.drafting.propose(room))
        if self.tree.is_chain:
            tree, tokens = Tree.chain(min(1 + len(tokens), self.tree.slots)), tokens[: self.tree.slots - 1]
            slots = [seq.pending, *tokens]
        else:  # Every slot of one depth gets the same token, so the tree's deepest path has most of them.
            tree, padded = self.tree, [seq.pending, *tokens]
            slots = [padded[depth] if depth < len(padded) else seq.pending for depth in self.tree.depth.tolist()]
        return Draft(tuple(slots), tree, self._probs(slots, tree))

    def observe(self, draft: Draft, verified: Verified, accepted: Accepted) -> None:
        if not self._own:
            self.drafting.observe(draft, verified, accepted)

    def _probs(self, tokens: Tokens[int], tree: Tree) -> dict[int, np.ndarray]:
        """Return by slot the distribution of its children: all of it on the one token that they have.

        The acceptance rule finds that a second child of one slot has no probability left, and takes it for padding.
        """
        seq = self.seq
        if not self.sample or seq.sampling.greedy:
            return {}
        assert seq.processing is not None
        probs = {}
        for slot, children in enumerate(tree.children):
            if children:
                probs[slot] = np.zeros(seq.processing.vocab_size)
                probs[slot][tokens[children[0]]] = 1.0
        return probs
