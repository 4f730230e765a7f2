"""Chains by a trained head that makes two tokens in one call (Falcon, Gao et al. 2024, arXiv:2412.12639)."""

from __future__ import annotations

import numpy as np

from ..call import Call
from ..draft import Draft, Outputs
from ..draft_head import running_head
from ..engine import Engine
from ..sequence import Sequence
from ..tree import Tree
from . import Drafter, Drafting, Proposal, check_counts

PAIR = Tree.chain(2)


class Falcon(Drafter):
    """A drafter of chains, two tokens a call. The first two come with the call that runs the accepted tokens."""

    def __init__(self, draft: Engine, feed: Engine, prefill: Engine, num_speculative_tokens: int = 4) -> None:
        """Keep the engines and the parameter.

        Args:
            draft: an engine of the head with two slots.
            feed: an engine of the head for the tokens of a step.
            prefill: an engine of the head for many tokens.
            num_speculative_tokens: tokens of a draft at most.
        """
        check_counts(num_speculative_tokens=num_speculative_tokens)
        self.engine, self.engines, self.count = draft, (feed, prefill), num_speculative_tokens

    def open(self, seq: Sequence) -> FalconDrafting:
        return FalconDrafting(self, seq)


class FalconDrafting(Drafting[Falcon]):
    """The drafts of one request."""

    def propose(self, room: int) -> Proposal:
        drafter, seq = self.drafter, self.seq
        root = (yield from running_head(drafter.engines, seq)) if room else None
        if root is None:
            return Draft.chain([seq.pending])
        count = min(room, drafter.count, root.cache.store.capacity - len(seq.tokens) - 1)
        tokens, outputs = _pair(root.outputs), root.outputs
        while len(tokens) < count:
            states = _states(outputs)
            outputs = yield Call(drafter.engine, root.cache, len(tokens) - 2, tokens[-2:], PAIR, {"state": states})
            outputs = outputs.only(1)
            tokens += _pair(outputs)
        return Draft.chain([seq.pending, *tokens[: max(0, count)]])


def _pair(outputs: Outputs) -> list[int]:
    """Return the likeliest two tokens behind the only slot."""
    assert outputs.top_ids_NK is not None
    return [int(token) for token in outputs.top_ids_NK[0, :, 0]]


def _states(outputs: Outputs) -> np.ndarray:
    """Return the states of the next two slots, [2, S]. The head makes them side by side, and reads the first half."""
    state = outputs.next_state_NS
    assert state is not None
    halves = state[0].reshape(2, -1)
    return np.concatenate([halves, np.zeros_like(halves)], 1)
