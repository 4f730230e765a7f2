"""Combs: SWIFT's and CaPE's. Siblings depend on how sure the draft is, and cost no call."""

from __future__ import annotations

from typing import Any

import pytest
from toys import World, prompts

from specc.recipes import METHODS
from specc.runtime.drafters.comb import Comb, check_siblings
from specc.runtime.errors import RecipeError

PROMPTS = prompts(8, seed=4)
ONE_SET: dict[str, Any] = {"skip_sets": [[[1], [1, 2]]]}  # of swift, whose drafter then has one engine


def comb(**parameters: Any) -> Comb:
    engine: Any = object()
    return Comb(engine, **{"siblings": ((0.8, 1), (0.6, 3), (0.3, 5), (0.0, 7)), **parameters})


def test_cape_proposes_more_tokens_where_the_draft_is_less_sure() -> None:
    """The widths of the paper: 7, 5, 3 and 1 up to 0.3, 0.6, 0.8 and 1."""
    widths = {0.1: 7, 0.3: 7, 0.31: 5, 0.6: 5, 0.7: 3, 0.8: 3, 0.81: 1, 1.0: 1, 0.0: 7}
    assert {p: comb().width(p) for p in widths} == widths


def test_swift_proposes_three_to_ten_tokens_and_stops_where_it_is_unsure() -> None:
    siblings = METHODS["swift"].parameters["siblings"].default
    assert [comb(siblings=siblings).width(p) for p in (0.96, 0.9, 0.6, 0.2)] == [3, 5, 8, 10]
    always, never = (
        list(World().method("swift", assistant_confidence_threshold=t, **ONE_SET).drafts(PROMPTS[0], 20))
        for t in (0, 1)
    )
    assert {calls for _, calls in never} == {1}  # No token has all of the probability, and the first stands anyway.
    assert max(calls for _, calls in always) > 1


@pytest.mark.parametrize(("name", "assistant"), [("cape", True), ("swift", False)])
def test_a_comb_has_one_chain_whose_nodes_alone_have_children(name: str, assistant: bool) -> None:
    nodes = 15
    sets = ONE_SET if name == "swift" else {}
    for draft, calls in World().method(name, assistant, num_speculative_tokens=nodes, **sets).drafts(PROMPTS[1], 25):
        assert draft.tree.slots <= 1 + nodes
        with_children = [slot for slot, children in enumerate(draft.tree.children) if children]
        assert all(draft.tree.rank[slot] == 0 for slot in with_children)
        assert len(with_children) == draft.tree.depth.max() <= calls
        for slot in with_children:  # likeliest first, and no token twice
            tokens = [draft.tokens[child] for child in draft.tree.children[slot]]
            assert len(set(tokens)) == len(tokens)


@pytest.mark.parametrize(("name", "assistant"), [("cape", True), ("swift", False)])
def test_siblings_are_accepted_that_the_chain_alone_misses(name: str, assistant: bool) -> None:
    """Tokens a step: those of the comb are more than those of the chain with the same length."""
    accepted = {}
    for kind, siblings in (("comb", METHODS[name].parameters["siblings"].default), ("chain", ((0.0, 1),))):
        sure: dict[str, Any] = {"assistant_confidence_threshold": 0} if name == "swift" else {}
        decoder = World().method(name, assistant, siblings=siblings, max_depth=4, num_speculative_tokens=40, **sure)
        accepted[kind] = [decoder.run(prompt, 60)[1] for prompt in PROMPTS[:4]]
    assert sum(accepted["comb"]) > sum(accepted["chain"])


@pytest.mark.parametrize(
    ("siblings", "message"),
    [
        ([], "give pairs of a probability and a count"),
        ([[0.5]], "give pairs of a probability and a count"),
        (3, "give pairs of a probability and a count"),
        ([[0.5, 2]], "give falling ones, of which the last is 0"),
        ([[0.0, 2], [0.5, 2]], "give falling ones, of which the last is 0"),
        ([[2, 2], [0, 1]], "siblings is 2; give a number from 0 to 1"),
        ([[0, 0]], "siblings is 0; give a whole number from 1 to 127"),
    ],
)
def test_siblings_that_say_no_width_are_refused(siblings: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        check_siblings(siblings)
