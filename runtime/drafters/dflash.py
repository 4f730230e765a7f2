"""Blocks that a trained head drafts in one call, from the target's states (DFlash, Chen et al. 2026, arXiv:2602.06036).

S  size of a state
"""

from __future__ import annotations

from ..call import Call, Growth
from ..draft import Draft
from ..draft_head import feeding_head
from ..engine import Engine
from ..sequence import Sequence
from . import Drafter, Drafting, Proposal, check_counts

# The last number of a state: that of tokens which the target has run, and of the pending token, where a block begins.
CONTEXT, PENDING = 0, 1


class Dflash(Drafter):
    """A drafter whose one call runs the accepted tokens and, behind them, a block whose slots all see one another."""

    def __init__(self, draft: Engine, prefill: Engine, block_size: int, num_speculative_tokens: int = 4) -> None:
        """Keep the engines and the parameters.

        Args:
            draft: a Frontier engine of the head, with slots for the tokens of a step and a block behind them.
            prefill: an engine of the head for many tokens.
            block_size: slots of a block, that of the pending token included.
            num_speculative_tokens: tokens of a draft at most.
        """
        check_counts(num_speculative_tokens=num_speculative_tokens)
        check_counts(least=2, most=draft.slots - 1, block_size=block_size)
        self.engine, self.reader, self.block_size, self.count = draft, prefill, block_size, num_speculative_tokens

    def open(self, seq: Sequence) -> DflashDrafting:
        return DflashDrafting(self, seq)


class DflashDrafting(Drafting[Dflash]):
    """The drafts of one request."""

    def propose(self, room: int) -> Proposal:
        drafter, seq = self.drafter, self.seq
        engine = drafter.engine
        # A block has rows of its own, though no draft keeps them. Near the end of the cache it is shorter.
        free = seq.caches[engine.block.cache].store.capacity - len(seq.tokens)
        block = min(drafter.block_size, free)
        count = min(drafter.count, room, block - 1)
        most = engine.slots - drafter.block_size
        left = (yield from feeding_head([drafter.reader], seq, most)) if count > 0 else None
        if left is None:
            return Draft.chain([seq.pending])
        width = len(left.keys)
        states = left.states[[*range(width), *[width - 1] * block]]
        states[width:, -1] = range(PENDING, PENDING + block)
        tokens = [*left.tokens, *[seq.pending] * block]
        outputs = yield Call(engine, left.cache, 0, tokens, Growth.block(width, block), {"state": states})
        left.cache.commit(left.keys, range(width))
        return Draft.chain([seq.pending, *map(int, outputs.ids_N[width + 1 : width + 1 + count])])
