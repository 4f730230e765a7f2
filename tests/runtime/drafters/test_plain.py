"""Plain decoding proposes nothing."""

from __future__ import annotations

from toys import ToyKV, propose

from specc.runtime.draft import Draft
from specc.runtime.drafters.plain import Plain
from specc.runtime.sequence import Cache, Sequence


def test_a_draft_is_the_pending_token_alone() -> None:
    assert propose(Plain().open(Sequence([4, 7], {"target": Cache(ToyKV(), [4])}))) == Draft.chain([7])
