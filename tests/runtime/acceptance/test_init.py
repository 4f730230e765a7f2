"""What marks a function as an acceptance rule."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from language import language, path_to, sampled_chain, verify

from specc.recipes.axes import RULES
from specc.runtime.acceptance import Acceptance, Keeps, rule, with_parameters
from specc.runtime.acceptance.match import match
from specc.runtime.draft import Accepted, Draft, Verified
from specc.runtime.errors import RecipeError
from specc.runtime.method import load_acceptance
from specc.runtime.rng import SeededRng
from specc.runtime.sampling import Sampling


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


LOOSE = {"confidence": {"threshold": 0.0}}  # The defaults of this rule are those of match.


@pytest.mark.parametrize("name", [name for name in RULES if name != "match"])
def test_a_rule_says_that_it_is_match_at_temperature_0_if_it_is(name: str) -> None:
    """The rules that do not say so differ somewhere, so the test can fail."""
    accept, differences = with_parameters(load_acceptance(name), LOOSE.get(name, {})), 0
    for seed in range(60):
        p, q = language(seed), language(100 + seed)
        draft = sampled_chain(3, q)(Sampling(1.0, rng=SeededRng(seed)))
        logits = {slot: np.log(q(path_to(draft, slot))) for slot in range(draft.tree.slots)}
        draft = draft._replace(logits=logits)
        verified = verify(draft, p, Sampling(0.0))
        verified = verified._replace(outputs=replace(verified.outputs, states={"judge": np.ones((3, 1))}))
        differences += accept(draft, verified) != match(draft, verified)
    assert (differences == 0) == accept.matches_if_greedy
