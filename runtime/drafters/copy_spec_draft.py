"""CopySpec over a draft model: copy where the last tokens occurred before, and draft elsewhere (arXiv:2502.08923)."""

from __future__ import annotations

from typing import Any

from ..draft import Accepted, Draft, Verified
from ..engine import Engine
from ..sequence import Sequence
from . import Proposal
from .copy_spec import CopySpec, CopySpecDrafting
from .draft_model import DraftModel, DraftModelDrafting


class CopySpecDraft(DraftModel):
    """A drafter that copies as `CopySpec` does, and asks a draft model where nothing matches."""

    def __init__(
        self,
        draft: Engine,
        prefill: Engine,
        min_matching_ngram_size: int = 5,
        prompt_lookup_num_tokens: int = 10,
        **length: Any,
    ) -> None:
        """Keep the engines and the parameters.

        Args:
            draft: the draft model on one slot.
            prefill: the draft model on many slots, which fills its cache with the prompt.
            min_matching_ngram_size: the tokens that must match to copy.
            prompt_lookup_num_tokens: tokens copied at most.
            **length: the parameters of `LengthPolicy`, for what the draft model drafts.
        """
        super().__init__(draft, prefill, **length)
        self.copies = CopySpec(min_matching_ngram_size, prompt_lookup_num_tokens)

    def open(self, seq: Sequence) -> CopySpecDraftDrafting:
        return CopySpecDraftDrafting(self, seq)


class CopySpecDraftDrafting(DraftModelDrafting):
    """The index of one request's text, and the draft model's rows of it."""

    drafter: CopySpecDraft

    def __init__(self, drafter: CopySpecDraft, seq: Sequence) -> None:
        super().__init__(drafter, seq)
        self.copying, self.copied = CopySpecDrafting(drafter.copies, seq), False

    def propose(self, room: int) -> Proposal:
        copy = self.copying.draft(room)
        self.copied = copy.tree.slots > 1
        return copy if self.copied else (yield from super().propose(room))

    def observe(self, draft: Draft, verified: Verified, accepted: Accepted) -> None:
        if not self.copied:
            super().observe(draft, verified, accepted)
