"""PEARL: the draft model drafts while the target verifies (Liu et al. 2024, arXiv:2408.11850)."""

from __future__ import annotations

from collections.abc import Generator

from ..call import Call
from ..draft import ONE_SLOT, Draft, Outputs
from ..engine import Engine, extending
from ..sequence import Sequence
from . import Drafter, Drafting, Proposal, check_counts


class Pearl(Drafter):
    """A drafter of chains by a draft model that runs at the same time as the target.

    The paper has two modes, and both follow from what was drafted ahead. If nothing was, the target runs the pending
    token alone while the draft model drafts: the paper's pre-verify, since the target's answer says whether the first
    drafted token is right. If it is, the tokens after it are the next draft, and while the target verifies them the
    draft model goes on behind them: post-verify. A wrong token makes all tokens behind it worthless.

    With a rule other than `match` a drafted token would need its distribution. So the drafts are the likeliest tokens,
    also for requests that sample.
    """

    def __init__(self, draft: Engine, prefill: Engine, num_speculative_tokens: int = 4) -> None:
        """Keep the engines and the parameters.

        Args:
            draft: the draft model on one slot.
            prefill: the draft model on many slots, which fills its cache with the prompt.
            num_speculative_tokens: gamma, the tokens that the draft model drafts while the target runs once.
        """
        check_counts(num_speculative_tokens=num_speculative_tokens)
        self.engine, self.prefill, self.count = draft, prefill, num_speculative_tokens

    def open(self, seq: Sequence) -> PearlDrafting:
        return PearlDrafting(self, seq)


class PearlDrafting(Drafting[Pearl]):
    """The draft model's rows of one request's text, and the tokens that it drafted ahead of it.

    Attributes:
        ahead: a text that begins as the request's text did, with drafted tokens behind it.
    """

    def __init__(self, drafter: Pearl, seq: Sequence) -> None:
        super().__init__(drafter, seq)
        self.ahead: list[int] = []

    def propose(self, room: int) -> Proposal:
        yield from ()
        tokens, ahead = self.seq.tokens, self.ahead
        right = ahead[: len(tokens)] == tokens
        chain = [self.seq.pending, *(ahead[len(tokens) : len(tokens) + room] if right else ())]
        return Draft.chain(chain)._replace(meanwhile=self._draft([*tokens, *chain[1:]]))

    def _draft(self, text: list[int]) -> Generator[Call, Outputs, None]:
        """Yield the calls that draft tokens behind a text, which may end with tokens that are not verified yet."""
        drafter = self.drafter
        cache = self.seq.caches[drafter.engine.block.cache]
        self.ahead = text
        feed = cache.sync(text[:-1])
        yield from extending(drafter.prefill if len(feed) > 1 else drafter.engine, cache, feed)
        for _ in range(min(drafter.count, cache.store.capacity - len(text))):
            outputs = yield Call(drafter.engine, cache, 0, text[-1:], ONE_SLOT)
            cache.commit(text[-1:], range(1))
            text.append(outputs.ids_N[0])
