"""EasySpec: a draft model whose layers run in parallel groups, with exact rows (Wu et al. 2025, arXiv:2502.02493)."""

from __future__ import annotations

from typing import Any

from ..call import Call
from ..draft import ONE_SLOT, Accepted, Draft, Outputs, Verified
from ..draft_chain import chaining
from ..engine import Engine, extending
from ..lengths import LengthPolicy
from ..sequence import Sequence
from . import Drafter, Drafting, Proposal


class EasySpec(Drafter):
    """A drafter of chains by a draft model in two forms: the exact one, and one that is faster and inexact.

    The exact model runs the tokens that were accepted in the last step and the pending one, all in one call. So the
    committed rows are exact, and so is the first drafted token: the paper's calibration. The tokens after it come from
    the inexact model. Its rows are scratch, so its errors do not add up over the text.
    """

    takes_length = True

    def __init__(
        self,
        draft: Engine,
        calibrate: Engine,
        prefill: Engine,
        sample: bool = False,
        keep_logits: bool = False,
        **length: Any,
    ) -> None:
        """Keep the engines and the parameters.

        Args:
            draft: the inexact draft model on one slot.
            calibrate: the exact draft model on the tokens of a step.
            prefill: the exact draft model on many slots, which fills its cache with the prompt.
            sample: sample the drafted tokens if the request samples.
            keep_logits: keep the logits of each slot in the draft, for a rule that asks for them.
            **length: the parameters of `LengthPolicy`.
        """
        self.engine, self.calibrate, self.prefill = draft, calibrate, prefill
        self.sample, self.keep_logits = sample, keep_logits
        self.length = LengthPolicy(**length)

    def open(self, seq: Sequence) -> EasySpecDrafting:
        return EasySpecDrafting(self, seq)


class EasySpecDrafting(Drafting[EasySpec]):
    """The exact rows of one request's text, and how long its drafts are."""

    def __init__(self, drafter: EasySpec, seq: Sequence) -> None:
        super().__init__(drafter, seq)
        self.length = drafter.length.open()

    def propose(self, room: int) -> Proposal:
        drafter, seq = self.drafter, self.seq
        cache = seq.caches[drafter.engine.block.cache]
        space = cache.store.capacity - len(seq.tokens) - 1
        if space <= 0 or (room <= 0 and not drafter.keep_logits):
            return Draft.chain([seq.pending])
        feed = [*cache.sync(seq.tokens[:-1]), seq.pending]
        if len(feed) > drafter.calibrate.slots:
            yield from extending(drafter.prefill, cache, feed[:-1])
            feed = feed[-1:]
        outputs, row = yield from extending(drafter.calibrate, cache, feed)

        def make_call(slot: int, token: int, before: Outputs | None) -> Call:
            return Call(drafter.engine, cache, slot - 1, (token,), ONE_SLOT)  # The pending token has a row.

        return (
            yield from chaining(
                make_call,
                seq,
                room=min(room, space),
                length=self.length,
                first=outputs.only(row),
                sample=drafter.sample,
                keep_logits=drafter.keep_logits,
            )
        )

    def observe(self, draft: Draft, verified: Verified, accepted: Accepted) -> None:
        self.length.observe(len(draft.tokens) - 1, len(accepted.slots) - 1)
