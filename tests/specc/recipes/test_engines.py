"""The engines of a recipe, as a user sees them before anything is compiled."""

from __future__ import annotations

import pytest

from specc.recipes import METHODS, Method
from specc.recipes.engines import DefaultEngine, default_engines


def test_the_engines_of_a_draft_model_are_chains_of_two_models() -> None:
    engines = default_engines(METHODS["draft-model"])
    assert [(e.role, e.model, e.slots) for e in engines] == [
        ("verify", "target", 1),
        ("verify", "target", 4),
        ("draft", "assistant", 1),
        ("prefill", "assistant", 64),
    ]


def test_trees_say_what_may_change() -> None:
    verify, draft = default_engines(METHODS["dynamic-tree"])
    assert verify == DefaultEngine(role="verify", model="target", cache="target", topology="any tree", slots=12)
    assert (draft.topology, draft.slots) == ("growing tree", 4)
    assert default_engines(METHODS["early-exit"])[0].topology == "static tree"


@pytest.mark.parametrize("m", METHODS.values(), ids=METHODS)
def test_every_method_has_engines_that_verify_and_models_that_it_needs(m: Method) -> None:
    engines = default_engines(m)
    assert engines[0].role == "verify" and engines[0].model == "target"
    assert any(e.model == "assistant" for e in engines) == ("assistant-model" in m.needs)
