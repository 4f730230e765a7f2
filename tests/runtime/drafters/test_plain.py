"""Plain decoding proposes nothing."""

from __future__ import annotations

from toys import ToyKV

from specc.runtime.draft import Draft
from specc.runtime.drafters.plain import Plain
from specc.runtime.sequence import Cache, Sequence


def test_a_draft_is_the_pending_token_alone() -> None:
    assert Plain().propose(Sequence([4, 7], Cache(ToyKV(), [4]))) == Draft.chain([7])
