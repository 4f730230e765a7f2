"""Stacked heads on a static tree: which guess each slot gets."""

from __future__ import annotations

from toys import World, prompts, successors

from specc.runtime.sequence import Sequence

PROMPT = prompts(3)[2]
TREE = [(0,), (1,), (0, 0), (0, 1), (0, 0, 0)]


def test_a_child_gets_the_token_of_its_rank_of_the_guess_for_its_level() -> None:
    decoder = World().method("medusa", tree=TREE)
    ranked = (-successors(24)).argsort(-1, kind="stable")
    for draft, calls in decoder.drafts(PROMPT, steps=10):
        first = ranked[draft.tokens[0]]
        second = ranked[first[0]]
        assert draft.tokens[1:] == (first[0], first[1], second[0], second[1], ranked[second[0]][0])
        assert calls == 1


def test_nothing_is_drafted_where_nothing_is_worth_drafting() -> None:
    world = World()
    decoder = world.method("medusa", tree=TREE)
    seq = Sequence(list(PROMPT), world.caches, limit=len(PROMPT) + 1)
    draft, _ = next(decoder.steps(seq))
    assert draft.tokens == (PROMPT[-1],) and decoder.drafter.engine.calls == 0
