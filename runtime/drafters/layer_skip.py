"""Layer-skip self-speculation: the target itself, layers left out, drafts a chain.

Its rows are the target's: the draft reads them and scribbles past their end, and verify overwrites what it wrote
(Zhang et al. 2024, arXiv:2309.08168; Elhoushi et al. 2024, arXiv:2404.16710).
"""

from __future__ import annotations

from ..draft import Draft
from ..engine import Engine
from ..sequence import Sequence
from .draft_model import DraftModel


class LayerSkip(DraftModel):
    """`draft` is an engine over the target's cache."""

    def __init__(
        self,
        draft: Engine,
        sample: bool = False,
        num_speculative_tokens: int = 4,
        assistant_confidence_threshold: float = 0.0,
    ) -> None:
        super().__init__(draft, draft, sample, num_speculative_tokens, assistant_confidence_threshold)

    def propose(self, seq: Sequence) -> Draft:
        return self.chain(seq, len(seq.cache))
