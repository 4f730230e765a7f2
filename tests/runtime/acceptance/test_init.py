"""What marks a function as an acceptance rule."""

from __future__ import annotations

import math
from typing import Any

import pytest

from specc.runtime.acceptance import Acceptance, Keeps, rule, with_parameters
from specc.runtime.draft import Accepted, Draft, Verified
from specc.runtime.errors import RecipeError


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


def test_a_rule_has_parameters_with_ranges() -> None:
    @rule(share=(0.0, 1.0))
    def first(draft: Draft, verified: Verified, *, share: float = 0.5) -> Accepted:
        return Accepted((0,), round(10 * share))

    nothing: Any = None
    assert with_parameters(first, {}) is first
    bound = with_parameters(first, {"share": 0.7})
    assert isinstance(bound, Acceptance) and bound.__name__ == "first"
    assert bound(nothing, nothing).token == 7 and first(nothing, nothing).token == 5


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"shares": 0.5}, "acceptance first has no parameter 'shares'; did you mean 'share'?"),
        ({"luck": 0.5}, "acceptance first has no parameter 'luck'; it has share"),
        ({"share": 1.5}, "share of acceptance first is 1.5; give 0 to 1"),
        ({"share": True}, "share of acceptance first is True; give 0 to 1"),
        ({"share": "0.5"}, "share of acceptance first is '0.5'; give 0 to 1"),
        ({"share": math.nan}, "share of acceptance first is nan; give 0 to 1"),
    ],
)
def test_parameters_of_a_stranger_are_checked(parameters: dict[str, Any], message: str) -> None:
    @rule(share=(0.0, 1.0))
    def first(draft: Draft, verified: Verified, *, share: float = 0.5) -> Accepted:
        return Accepted((0,), 7)

    with pytest.raises(RecipeError) as error:
        with_parameters(first, parameters)
    assert str(error.value) == message
