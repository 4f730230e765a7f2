"""Chains that a trained head drafts in one call (P-EAGLE, Hui et al. 2026, arXiv:2602.01469)."""

from __future__ import annotations

import numpy as np

from ..call import Call
from ..draft import Draft
from ..draft_head import feeding_head
from ..engine import Engine
from ..sequence import Sequence
from ..tree import Tree
from . import Drafter, Drafting, Proposal, check_counts


class Peagle(Drafter):
    """A drafter whose one call runs the accepted tokens and, behind them, slots without a token, one a guess."""

    def __init__(self, draft: Engine, prefill: Engine, num_speculative_tokens: int = 4) -> None:
        """Keep the engines and the parameter.

        Args:
            draft: an engine of the head with twice as many slots as a draft has tokens.
            prefill: an engine of the head for many tokens.
            num_speculative_tokens: tokens of a draft at most.
        """
        check_counts(num_speculative_tokens=num_speculative_tokens)
        self.engine, self.engines, self.count = draft, sorted((draft, prefill), key=_slots), num_speculative_tokens

    def open(self, seq: Sequence) -> PeagleDrafting:
        return PeagleDrafting(self, seq)


class PeagleDrafting(Drafting[Peagle]):
    """The drafts of one request."""

    def propose(self, room: int) -> Proposal:
        drafter, seq = self.drafter, self.seq
        engine = drafter.engine
        room = min(room, seq.caches[engine.block.cache].store.capacity - len(seq.tokens) - 1)
        count = min(drafter.count, room)
        left = (yield from feeding_head(drafter.engines, seq, engine.slots - drafter.count + 1)) if count > 0 else None
        if left is None:
            return Draft.chain([seq.pending])
        width, guesses = len(left.keys), count - 1
        # A slot whose state is all zeros stands on the head's learned state, whatever its token.
        states = np.concatenate([left.states, np.zeros((guesses, left.states.shape[1]), left.states.dtype)])
        tokens = [*left.tokens, *[seq.pending] * guesses]
        outputs = yield Call(engine, left.cache, 0, tokens, Tree.chain(len(tokens)), {"state": states})
        left.cache.commit(left.keys, range(width))
        return Draft.chain([seq.pending, *(int(token) for token in outputs.ids_N[width - 1 : width - 1 + count])])


def _slots(engine: Engine) -> int:
    return engine.slots
