"""Chains as long as a trained head expects to be accepted (AdaEAGLE, Zhang et al. 2024, arXiv:2412.18910)."""

from __future__ import annotations

from ..draft_head import HeadRoot
from ..sequence import Sequence
from .eagle import Eagle, EagleDrafting


class AdaEagle(Eagle):
    """A drafter of chains by a head whose next state ends with the length of the draft."""

    def open(self, seq: Sequence) -> AdaEagleDrafting:
        return AdaEagleDrafting(self, seq)


class AdaEagleDrafting(EagleDrafting):
    """The drafts of one request."""

    def most(self, root: HeadRoot, room: int) -> int:
        state = root.outputs.next_state_NS
        assert state is not None
        return min(max(0, round(float(state[0, -1]))), room)
