"""A static tree by a head that makes two tokens in one call: two levels a call, and blocks that remember."""

from __future__ import annotations

import numpy as np
import pytest
from toys import World, prompts

from specc.heads import falcon as head
from specc.recipes import METHODS, Facts
from specc.runtime.call import Call
from specc.runtime.draft import Draft
from specc.runtime.drafters import Proposal
from specc.runtime.drafters.falcon import BLOCK, MEMORY, PARTS, Falcon, FalconDrafting
from specc.runtime.errors import RecipeError, TreeError
from specc.runtime.tree import Tree

TEXT = prompts(1, seed=3)[0] * 2
PATHS = [(0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0), (0, 1, 0), (1, 0, 0), (0, 0, 0, 0), (1, 0, 0, 0)]


def chain(depth: int) -> list[tuple[int, ...]]:
    return [(0,) * length for length in range(1, 1 + depth)]


@pytest.mark.parametrize("depth", [2, 4, 6, 8])
def test_a_draft_takes_half_as_many_calls_as_it_has_levels(depth: int) -> None:
    """The first two levels come with the call that runs the accepted tokens."""
    drafts = list(World().method("falcon", tree=chain(depth)).drafts(TEXT, steps=12))[1:]
    assert {(len(draft.tokens) - 1, calls) for draft, calls in drafts} == {(depth, depth // 2 - 1)}


def test_the_blocks_of_two_levels_run_in_one_call() -> None:
    """Three blocks end in level 2 of this tree. Two levels more come from one call."""
    drafts = list(World().method("falcon", tree=PATHS).drafts(TEXT, steps=12))[1:]
    assert {draft.tree for draft, _ in drafts} == {Tree.from_paths(PATHS)}
    assert {calls for _, calls in drafts} == {1}
    for draft, _ in drafts:
        siblings = list(zip(draft.tree.parents, draft.tokens, strict=True))
        assert len(set(siblings)) == len(siblings)


def test_an_odd_number_of_levels_needs_no_further_call() -> None:
    drafts = list(World().method("falcon", tree=chain(3)).drafts(TEXT, steps=6))[1:]
    assert {(len(draft.tokens) - 1, calls) for draft, calls in drafts} == {(3, 1)}


def test_a_text_of_one_token_has_no_draft() -> None:
    (draft, calls), *_ = World().method("falcon").drafts([3], steps=1)
    assert len(draft.tokens) == 1 and calls == 0


def test_slots_of_the_text_start_from_what_is_remembered_of_the_row_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first slot of each call says so. What it starts from is what the head returned of the row before it."""
    calls: list[Call] = []
    original = FalconDrafting.propose
    caches = {}

    def spy(self: FalconDrafting, room: int) -> Proposal:
        calls_of_draft = original(self, room)
        call = next(calls_of_draft)
        while True:
            calls.append(call)
            caches[id(call.cache)] = call.cache
            try:
                call = calls_of_draft.send((yield call))
            except StopIteration as end:
                draft: Draft = end.value
                return draft

    monkeypatch.setattr(FalconDrafting, "propose", spy)
    list(World().method("falcon", tree=chain(4)).drafts(TEXT, steps=8))
    of_text = [call for call in calls if isinstance(call.tree, Tree)]
    of_draft = [call for call in calls if not isinstance(call.tree, Tree)]
    size = of_text[0].inputs["state"].shape[1] // PARTS
    starts = (PARTS - 1) * size
    later = [call for call in of_text if call.inputs["state"][0, starts] == 1]
    assert len(later) == len(of_text) - 1
    (cache,) = caches.values()
    memory = cache.states[MEMORY]
    assert memory.shape[0] == cache.store.capacity and memory[: len(cache), 0].all()
    for call in later:  # All numbers that a toy returns of a row are equal.
        first = call.inputs["state"][0]
        assert set(first[size:starts]) <= set(memory[:, 0]) and not first[starts + 1 :].any()
    for call in of_draft:
        first, second = call.inputs["state"]
        assert first[starts] == 1 and not second[size:].any() and second[:size].any()


def test_a_head_and_its_drafter_agree_on_the_parts_of_a_state() -> None:
    assert (head.BLOCK, head.PARTS) == (BLOCK, PARTS)


def test_a_tree_that_is_none_is_refused_before_the_engines_are_looked_at() -> None:
    engine = World().prefill
    with pytest.raises(TreeError, match="not a tree"):
        Falcon(engine, engine, engine, [0, 1])


def test_a_rank_that_the_head_does_not_return_is_refused() -> None:
    method, paths = METHODS["falcon"], [(rank,) for rank in range(9)]
    with pytest.raises(RecipeError, match="rank 8; falcon has 8"):
        method.plan(method.settle({"tree": paths}), Facts(4, 24))


def test_a_draft_of_no_tokens_is_refused() -> None:
    with pytest.raises(RecipeError, match="num_speculative_tokens"):
        World().method("falcon", num_speculative_tokens=0)


def test_the_tree_by_default_ends_with_the_second_call() -> None:
    method = METHODS["falcon"]
    plan = method.plan(method.settle({}), Facts(4, 24))
    tree = Tree(plan.arguments["tree"])
    assert int(tree.depth.max()) == 4
    assert np.bincount(tree.depth)[1] > 1
