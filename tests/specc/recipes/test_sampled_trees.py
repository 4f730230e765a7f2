"""Methods that verify trees of a draft model by rules for sampled drafts."""

from __future__ import annotations

from typing import Any

import pytest

from specc.recipes.blocks import branching_tree
from specc.recipes.entry import Facts, Method
from specc.recipes.sampled_trees import RSD_C, RSD_S, SPECTR
from specc.runtime.block import Block, Frontier, Parents
from specc.runtime.errors import RecipeError
from specc.runtime.tree import Tree

FACTS = Facts(8, 500, assistant=True)


def test_a_tree_of_constant_branching_has_its_slots_level_by_level() -> None:
    assert branching_tree([2, 1]) == Tree((-1, 0, 0, 1, 2))
    assert branching_tree((1, 2)) == Tree((-1, 0, 1, 1))


@pytest.mark.parametrize("branching", [None, [], [0], [2, True], "22", 2, [2, 1.0]])
def test_a_branching_that_is_no_list_of_numbers_is_refused(branching: Any) -> None:
    with pytest.raises(RecipeError, match=r"give the children of a node in each level, such as \[2, 2, 1\]"):
        branching_tree(branching)


def test_the_chains_of_spectr_are_one_baked_tree() -> None:
    blocks = SPECTR.plan(SPECTR.settle({"chains": 2, "num_speculative_tokens": 3}), FACTS)
    assert blocks.verify == (Block(Tree((-1, 0, 0, 1, 2, 3, 4))),)
    assert blocks.arguments == {"tree": (-1, 0, 0, 1, 2, 3, 4)}
    assert blocks.engines["draft"].topology == Frontier(2, 4 + 7) and blocks.engines["draft"].cache == "assistant"


def test_rsd_s_has_an_engine_for_any_tree_and_a_draft_as_wide_as_the_beam() -> None:
    blocks = RSD_S.plan(RSD_S.settle({"beams": 5, "max_depth": 2}), FACTS)
    assert blocks.verify == (Block(Parents(11)),) and blocks.arguments == {"beams": 5, "max_depth": 2}
    assert blocks.engines["draft"].topology == Frontier(5, 4 + 11)


@pytest.mark.parametrize(
    ("m", "values", "message"),
    [
        (RSD_C, {"branching": [9]}, "a draft ranks 8 tokens: give 8 at most"),
        (RSD_C, {"branching": [8, 8, 8]}, "makes more than 127 nodes; give smaller numbers"),
        (RSD_S, {"beams": 32, "max_depth": 4}, "make 128 nodes; give 127 at most"),
        (SPECTR, {"chains": 0}, "chains is 0; give a whole number from 1 to 127"),
        (SPECTR, {"chains": 16, "num_speculative_tokens": 8}, "makes more than 127 nodes; give smaller numbers"),
    ],
)
def test_a_tree_that_fits_no_engine_is_refused(m: Method, values: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        m.plan(m.settle(values), FACTS)


@pytest.mark.parametrize("m", [SPECTR, RSD_C, RSD_S], ids=lambda m: m.name)
def test_they_are_lossless_and_no_defaults(m: Method) -> None:
    assert m.lossless and not m.by_default and m.needs == ("assistant-model",)
