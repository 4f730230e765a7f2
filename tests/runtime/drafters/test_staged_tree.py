"""Staged speculative decoding: the draft model's calls run what lookup guesses, and fewer of them are needed."""

from __future__ import annotations

from toys import Circle, World

from specc.runtime.drafters.staged_tree import Nodes, Place

PATTERN = [*range(9), *range(5)]


def test_staged_drafting_costs_fewer_calls_than_tokens_where_the_text_repeats() -> None:
    """The toys count, so lookup and draft model agree."""
    plain, staged = (
        World(9, Circle).method(name, assistant=True, num_speculative_tokens=7, max_depth=5)
        for name in ("dyspec-threshold", "staged-tree")
    )
    single, inner = (list(decoder.drafts(PATTERN, 12)) for decoder in (plain, staged))
    drafted = sum(draft.tree.slots - 1 for draft, _ in inner)
    assert sum(calls for _, calls in inner) < sum(calls for _, calls in single)
    assert sum(calls for _, calls in inner) < drafted


def test_a_guess_becomes_the_node_that_the_draft_model_agrees_with() -> None:
    nodes = Nodes(5)
    assert nodes.hang(0, [6, 7]) == [1, 2]
    nodes.children[0] = [(6, 0.5), (8, 0.5)]
    assert nodes.grow(Place(1.0, 0, 0), 4) == [(0.5, 1, 1)]  # The second child is too unlikely to get children.
    nodes.children[1] = [(9, 0.9)]
    assert nodes.grow(Place(0.5, 1, 1), 4) == [(0.45, 4, 2)]
    assert nodes.path(4) == [6, 9]
    draft = nodes.draft()
    assert (draft.tokens, draft.tree.parents) == ((5, 6, 8, 9), (-1, 0, 0, 1))
