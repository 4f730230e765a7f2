"""Recorded drafts, cut to what other parameters would have drafted."""

from __future__ import annotations

from typing import Any

import pytest
from toys import World, prompts

from specc.recipes.axes import LENGTHS
from specc.runtime.draft import Draft
from specc.runtime.recipe import Recipe
from specc.runtime.tree import Tree
from specc.tuning.draft_replay import NEVER, Cut, DraftRecord, cut, ends_by_confidence, opened

PROMPT = prompts(3)[2]
CHAIN = DraftRecord((-1, 0, 1, 2), (1.0, 0.8, 0.2, 0.18), (0, 1, 2))
TREE = DraftRecord((-1, 0, 0, 1, 3), (1.0, 0.6, 0.3, 0.4, 0.1), (0, 1, 3, 4))
COSTS = [(1, 1.0), (3, 1.3), (5, 1.6)]


def chain(count: int, threshold: float) -> Cut:
    parameters = {"num_speculative_tokens": count, "assistant_confidence_threshold": threshold}
    return cut(CHAIN, parameters, {"num_speculative_tokens": 3, "assistant_confidence_threshold": NEVER})


def tree(costs: Any, **parameters: Any) -> Cut:
    original = {"num_speculative_tokens": 4, "max_depth": 3, "step_costs": ()}
    return cut(TREE, {**original, "step_costs": costs, **parameters}, original)


@pytest.mark.parametrize(
    ("count", "threshold", "expected"),
    [
        (3, 0.0, Cut(3, 2, 0)),
        (2, 0.0, Cut(2, 2, 1)),
        (1, 0.0, Cut(1, 1, 2)),
        (3, 0.5, Cut(2, 2, 1)),  # The second token had 0.2 / 0.8, and is the last one.
        (3, 0.9, Cut(1, 1, 2)),
        (3, 0.2, Cut(3, 2, 0)),
    ],
)
def test_a_chain_ends_at_its_length_or_behind_a_token_of_little_probability(
    count: int, threshold: float, expected: Cut
) -> None:
    assert chain(count, threshold) == expected


@pytest.mark.parametrize("length", [word for word, axis in LENGTHS.items() if axis.parameters is not None])
def test_a_draft_of_any_length_policy_is_cut_and_by_confidence_alone_also_by_its_threshold(length: str) -> None:
    """A recipe file may choose any of them, and some state how likely each slot is, but have no such threshold."""
    values = {name: parameter.default for name, parameter in (LENGTHS[length].parameters or {}).items()}
    original = {"num_speculative_tokens": 3, **values}
    whole = Cut(2, 2, 1) if length == "confidence" else Cut(3, 2, 0)  # The second token had 0.2 / 0.8.
    assert cut(CHAIN, original, original) == whole
    assert cut(CHAIN, {**original, "num_speculative_tokens": 1}, original) == Cut(1, 1, 2)


def test_a_tree_keeps_the_slots_that_pay() -> None:
    assert tree(()) == Cut(4, 3, 0)
    assert tree(COSTS) == Cut(2, 2, 0)  # 2.0 / 1.3 is more than 2.4 / 1.6; both levels of the head still run.
    assert tree([(1, 1.0), (5, 9.0)]) == Cut(0, 0, 2)


def test_a_tree_has_no_slots_below_the_deepest_level_unless_they_may_be_copies() -> None:
    assert tree((), max_depth=2) == Cut(3, 2, 1)
    assert tree((), max_depth=1) == Cut(2, 1, 2)
    assert tree((), max_depth=2, match_rates=[0.5]).drafted == 4


@pytest.mark.parametrize("costs", [[(1, 1.0), (4, 1.4), (12, 2.2)], [(1, 1.0), (4, 1.4), (12, 1.5)]])
def test_it_is_what_the_drafter_drafts_by_these_costs(costs: Any) -> None:
    original = {"num_speculative_tokens": 11, "max_depth": 3, "step_costs": []}

    def drafts(parameters: dict[str, Any]) -> list[tuple[Draft, int]]:
        return list(World().method("eagle3-tree", **parameters).drafts(PROMPT, steps=1))

    [(whole, _)], [(smaller, _)] = drafts(original), drafts({**original, "step_costs": costs})
    record = DraftRecord.of(whole, (0,))
    assert record and cut(record, {**original, "step_costs": costs}, original).drafted == smaller.tree.slots - 1


def test_a_draft_that_says_nothing_of_its_slots_has_no_record() -> None:
    assert DraftRecord.of(Draft.chain([1, 2]), (0,)) is None
    assert DraftRecord.of(Draft((1, 2), Tree.chain(2), values=(1.0, 0.5)), (0, 1)) == DraftRecord(
        (-1, 0), (1.0, 0.5), (0, 1)
    )


def test_a_recipe_is_opened_so_that_its_drafts_are_whole_and_say_how_likely_they_are() -> None:
    def parameters(**values: Any) -> dict[str, Any]:
        return dict(opened(Recipe(name="a", drafter="a", verify=("decode",), parameters=values)).parameters)

    confident = {"num_speculative_tokens": 3, "assistant_confidence_threshold": 0.0}
    assert parameters(**confident) == confident | {"assistant_confidence_threshold": NEVER}
    assert parameters(**confident | {"assistant_confidence_threshold": 0.3})["assistant_confidence_threshold"] == 0.3
    assert parameters(step_costs=[[1, 1.0]])["step_costs"] == []
    assert parameters(tree=[-1, 0]) == {"tree": [-1, 0]}
    assert not ends_by_confidence(confident | {"prompt_lookup_num_tokens": 3})


def test_a_chain_states_the_chances_of_its_tokens_if_it_reads_them() -> None:
    def values(threshold: float) -> tuple[float, ...]:
        decoder = World().method("eagle3", assistant_confidence_threshold=threshold)
        [(draft, _)] = decoder.drafts(PROMPT, steps=1)
        assert not draft.values or len(draft.values) == draft.tree.slots
        return draft.values

    assert values(0.0) == ()
    assert values(NEVER)[0] == 1.0 and list(values(NEVER)) == sorted(values(NEVER), reverse=True)
