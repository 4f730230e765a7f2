"""What marks a function as an acceptance rule."""

from __future__ import annotations

from specc.runtime.acceptance import Acceptance, Keeps, rule
from specc.runtime.draft import Accepted, Draft, Verified


def test_a_function_is_a_rule_when_it_is_marked() -> None:
    def first(draft: Draft, verified: Verified) -> Accepted:
        return Accepted((0,), 7)

    assert not isinstance(first, Acceptance)
    for needs in (False, True):
        accept = rule(needs_draft_probs=needs)(first)
        assert isinstance(accept, Acceptance) and accept.needs_draft_probs is needs and accept.__name__ == "first"


def test_a_rule_that_does_not_say_what_it_keeps_keeps_nothing() -> None:
    def first(draft: Draft, verified: Verified) -> Accepted:
        return Accepted((0,), 7)

    assert rule(needs_draft_probs=False)(first).keeps == Keeps.NOTHING
    assert rule(needs_draft_probs=False, keeps=Keeps.TOKENS)(first).keeps == Keeps.TOKENS
