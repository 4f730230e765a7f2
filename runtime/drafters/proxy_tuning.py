"""Proxy tuning, as FS-GEN has it (Zhang et al. 2024, arXiv:2406.12295): a draft model, and what its tuning changed."""

from __future__ import annotations

from typing import Any

from ..engine import Engine, extending
from ..sequence import Sequence
from . import Proposal
from .draft_model import DraftModel, DraftModelDrafting


class ProxyTuning(DraftModel):
    """A drafter of chains by a tuned draft model. An untuned one of that size reads what it wrote.

    The logits of its drafts are those of the tuned model less those of the untuned one, after the last slot.
    """

    def __init__(
        self,
        draft: Engine,
        prefill: Engine,
        base: Engine,
        base_prefill: Engine,
        sample: bool = False,
        keep_difference: bool = False,
        **length: Any,
    ) -> None:
        """Keep the engines and the parameters.

        Args:
            draft: as in `DraftModel`.
            prefill: as in `DraftModel`.
            base: the untuned model on as many slots as a draft has.
            base_prefill: the untuned model on many slots.
            sample: as in `DraftModel`.
            keep_difference: keep in each draft the difference of the two models' logits after the last slot.
            **length: the parameters of `LengthPolicy`.
        """
        super().__init__(draft, prefill, sample, keep_difference, **length)
        self.base, self.base_prefill = base, base_prefill

    def open(self, seq: Sequence) -> ProxyTuningDrafting:
        return ProxyTuningDrafting(self, seq)


class ProxyTuningDrafting(DraftModelDrafting):
    """The rows of both small models."""

    drafter: ProxyTuning

    def propose(self, room: int) -> Proposal:
        drafter = self.drafter
        draft = yield from super().propose(room)
        last = draft.tree.slots - 1
        if last not in draft.logits:
            return draft
        cache = self.seq.caches[drafter.base.block.cache]
        tokens = [*self.seq.tokens, *draft.tokens[1:]]
        feed = [*cache.sync(tokens[:-1]), tokens[-1]]
        engine = drafter.base if len(feed) <= drafter.base.slots else drafter.base_prefill
        outputs, row = yield from extending(engine, cache, feed)
        assert outputs.logits_NV is not None
        return draft._replace(logits={last: draft.logits[last] - outputs.logits_NV[row]})
